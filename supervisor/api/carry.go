package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
)

// LoadRequest brings images of an archive into the store. POST
// /v1/images:load?name=NAME&platform=PLATFORM with the archive as the body, or
// with folder=PATH that of an OCI layout on the daemon's host. It is answered by
// JSON lines of LoadMessage, while the body is still being read.
type LoadRequest struct {
	Name     string // for an image that the archive has no name for
	Platform string // of an index the image for it; empty: the host's
	Folder   string // absolute path; then there is no body
}

// LoadMessage is one line of a load; one field is set. The last line has Images
// or Error.
type LoadMessage struct {
	Progress *Progress `json:"progress,omitempty"`
	Images   []Image   `json:"images,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

// SaveRequest writes images out. POST /v1/images:save. Without Folder the answer's
// body is the archive; an error that comes up in the middle stands in the
// trailer ErrorTrailer. With Folder the daemon writes an OCI layout there.
type SaveRequest struct {
	Refs   []string `json:"refs"`
	Format string   `json:"format,omitempty"` // docker-archive (the default), oci-archive
	Folder string   `json:"folder,omitempty"` // absolute path on the daemon's host
}

// ErrorTrailer is the HTTP trailer of a body of bytes: empty if they are whole,
// else an Error as JSON.
const ErrorTrailer = "Wherry-Error"

// Load streams an archive into the store and returns its images. The daemon
// reads no faster than it can unpack.
func (c *Client) Load(ctx context.Context, archive io.Reader, r LoadRequest, progress func(Progress)) ([]Image, error) {
	q := url.Values{}
	for name, v := range map[string]string{"name": r.Name, "platform": r.Platform, "folder": r.Folder} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if r.Folder != "" {
		archive = http.NoBody
	}
	// The archive's own error says more than the broken connection it leads to.
	in := &failing{Reader: archive}
	images, err := c.load(ctx, in, q, progress)
	if failed := in.failure(); err != nil && failed != nil {
		return nil, failed
	}
	return images, err
}

func (c *Client) load(ctx context.Context, archive io.Reader, q url.Values, progress func(Progress)) ([]Image, error) {
	for m, err := range lines[LoadMessage](ctx, c, http.MethodPost, "/images:load", q, archive) {
		switch {
		case err != nil:
			return nil, err
		case m.Error != nil:
			return nil, m.Error
		case m.Progress == nil:
			return m.Images, nil
		case progress != nil:
			progress(*m.Progress)
		}
	}
	return nil, c.transportError(ctx, io.ErrUnexpectedEOF)
}

// Save writes an archive of images to w, or a folder on the daemon's host.
func (c *Client) Save(ctx context.Context, w io.Writer, r SaveRequest) error {
	res, err := c.open(ctx, http.MethodPost, "/images:save", nil, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if r.Folder != "" {
		return nil
	}
	in := &failing{Reader: res.Body}
	if _, err := io.Copy(w, in); err != nil {
		if in.failure() != nil {
			return c.transportError(ctx, err)
		}
		return err // of the writer
	}
	text := res.Trailer.Get(ErrorTrailer)
	if text == "" {
		return nil
	}
	e := &Error{}
	if json.Unmarshal([]byte(text), e) != nil {
		e.Code, e.Message = CodeInternal, text
	}
	return e
}

// failing remembers what went wrong with reading: the transport reads a body in
// a goroutine of its own.
type failing struct {
	io.Reader

	mu  sync.Mutex
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.mu.Lock()
		f.err = err
		f.mu.Unlock()
	}
	return n, err
}

func (f *failing) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
