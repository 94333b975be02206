package api

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"time"
)

// SkippedTrailer is the HTTP trailer of an archive: a JSON list of what is not in it, and why.
const SkippedTrailer = "Wherry-Skipped"

// FileInfo is what a path in a container leads to.
type FileInfo struct {
	Name    string      `json:"name"` // of the path's last part
	Mode    fs.FileMode `json:"mode"`
	Size    int64       `json:"size"`
	ModTime time.Time   `json:"mtime"`
	Link    string      `json:"link,omitempty"` // of a symbolic link
}

// CopyResult is what became of an archive that was sent.
type CopyResult struct {
	Skipped []string `json:"skipped,omitempty"` // what was not made, and why
}

// CopyFrom is what to read of a container. GET /v1/files?target=TARGET&path=PATH&as=NAME&follow=1,
// answered by a tar archive.
type CopyFrom struct {
	Target string // see SplitTarget; it need not run
	Path   string
	As     string // the name in the archive; empty: what is in the folder, without the folder
	Follow bool   // a link at the path is followed
}

// CopyTo is where to unpack an archive. PUT /v1/files?target=TARGET&path=FOLDER&owners=1 with
// the archive as the body.
type CopyTo struct {
	Target string
	Path   string // a folder that is there
	Owners bool   // the archive's, inside the container; otherwise all is root's
}

func fileQuery(target, path string, more map[string]bool) url.Values {
	q := url.Values{"target": {target}, "path": {path}}
	for name, set := range more {
		if set {
			q.Set(name, "1")
		}
	}
	return q
}

// FileInfo tells what a path in a container leads to. GET /v1/files:info?target=TARGET&path=PATH&follow=1.
// One that is not there is ErrNoFile.
func (c *Client) FileInfo(ctx context.Context, target, path string, follow bool) (i FileInfo, err error) {
	return i, c.call(ctx, http.MethodGet, "/files:info", fileQuery(target, path, map[string]bool{"follow": follow}), nil, &i)
}

// CopyFrom writes a file or folder of a container to w as an archive, and returns what is not in it.
func (c *Client) CopyFrom(ctx context.Context, r CopyFrom, w io.Writer) (skipped []string, err error) {
	q := fileQuery(r.Target, r.Path, map[string]bool{"follow": r.Follow})
	q.Set("as", r.As)
	res, err := c.open(ctx, http.MethodGet, "/files", q, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	in := &failing{Reader: res.Body}
	if _, err := io.Copy(w, in); err != nil {
		if in.failure() != nil {
			return nil, c.transportError(ctx, err)
		}
		return nil, err // of the writer
	}
	if text := res.Trailer.Get(SkippedTrailer); text != "" {
		_ = json.Unmarshal([]byte(text), &skipped)
	}
	if text := res.Trailer.Get(ErrorTrailer); text != "" {
		e := &Error{}
		if json.Unmarshal([]byte(text), e) != nil {
			e.Code, e.Message = CodeInternal, text
		}
		return skipped, e
	}
	return skipped, nil
}

// CopyTo unpacks an archive in a container.
func (c *Client) CopyTo(ctx context.Context, r CopyTo, archive io.Reader) (CopyResult, error) {
	// The archive's own error says more than the broken connection it leads to.
	in := &failing{Reader: archive}
	var result CopyResult
	err := c.call(ctx, http.MethodPut, "/files", fileQuery(r.Target, r.Path, map[string]bool{"owners": r.Owners}), in, &result)
	if failed := in.failure(); err != nil && failed != nil {
		return result, failed
	}
	return result, err
}
