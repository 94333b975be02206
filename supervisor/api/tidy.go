package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"
)

// GCRequest deletes images that nobody needs. POST /v1/images:gc. Without All
// only as far as the disk asks for it.
type GCRequest struct {
	All    bool `json:"all,omitempty"`
	DryRun bool `json:"dry_run,omitempty"`
}

// GCResult is what a garbage collection did, or with DryRun would do.
type GCResult struct {
	Images  []string `json:"images"`  // digests of the images that went
	Blobs   []string `json:"blobs"`   // compressed layers of images that stay, which went to make room
	Deleted []string `json:"deleted"` // digests of blobs and layers
	Freed   int64    `json:"freed"`   // bytes
	Disk    Disk     `json:"disk"`    // afterwards
}

// Explanation says why an image stays or goes. GET /v1/images:explain?ref=REF.
type Explanation struct {
	Image   string    `json:"image"` // first name, or the digest
	Digest  string    `json:"digest"`
	Stays   bool      `json:"stays"`
	Reasons []string  `json:"reasons"`
	Size    int64     `json:"size"`  // bytes on disk
	Frees   int64     `json:"frees"` // bytes that only this image takes
	LastUse time.Time `json:"last_use,omitzero"`
}

// VerifyRequest compares what is stored with what was unpacked. POST
// /v1/images:verify, with Repair /v1/images:repair, answered by JSON lines of
// VerifyMessage. It ends with its caller.
type VerifyRequest struct {
	Refs   []string `json:"refs,omitempty"` // none: all images
	Repair bool     `json:"repair,omitempty"`
}

// VerifyMessage is one line of a verification; one field is set. The last line
// has Done or Error. Damage is no error.
type VerifyMessage struct {
	Progress *Progress     `json:"progress,omitempty"`
	Image    *Verification `json:"image,omitempty"`
	Done     bool          `json:"done,omitempty"`
	Error    *Error        `json:"error,omitempty"`
}

// Verification is what was found of one image.
type Verification struct {
	Image  string   `json:"image"` // first name, or the digest
	Digest string   `json:"digest"`
	Layers int      `json:"layers"`
	Files  int      `json:"files"`  // that were compared
	Bytes  int64    `json:"bytes"`  // that were read
	Damage []Damage `json:"damage"` // none: all is as it was unpacked
}

// Damage is one thing that is not as it was stored.
type Damage struct {
	Layer    string `json:"layer,omitempty"` // diff ID
	Blob     string `json:"blob,omitempty"`  // digest
	Path     string `json:"path,omitempty"`  // in the layer
	What     string `json:"what"`
	Repaired bool   `json:"repaired"`
}

// RateLimit is what a registry last said about how many pulls are left.
type RateLimit struct {
	Registry  string        `json:"registry"`
	Limit     int           `json:"limit"`     // -1: it did not say
	Remaining int           `json:"remaining"` // -1: it did not say
	Window    time.Duration `json:"window"`    // nanoseconds
	At        time.Time     `json:"at"`
	Until     time.Time     `json:"until,omitzero"` // it wants no requests before
}

// CollectImages deletes images that nobody needs.
func (c *Client) CollectImages(ctx context.Context, r GCRequest) (g GCResult, err error) {
	return g, c.call(ctx, http.MethodPost, "/images:gc", nil, r, &g)
}

// ExplainImage says whether the next collection would delete an image, and why.
func (c *Client) ExplainImage(ctx context.Context, ref string) (e Explanation, err error) {
	return e, c.call(ctx, http.MethodGet, "/images:explain", url.Values{"ref": {ref}}, nil, &e)
}

// DiskUsage measures what takes the space. It may take seconds.
func (c *Client) DiskUsage(ctx context.Context) (d DiskUsage, err error) {
	return d, c.call(ctx, http.MethodGet, "/disk", nil, nil, &d)
}

// VerifyImages returns what was found of each image.
func (c *Client) VerifyImages(ctx context.Context, r VerifyRequest, progress func(Progress)) ([]Verification, error) {
	path := "/images:verify"
	if r.Repair {
		path = "/images:repair"
	}
	found := []Verification{}
	for m, err := range lines[VerifyMessage](ctx, c, http.MethodPost, path, nil, r) {
		switch {
		case err != nil:
			return found, err
		case m.Error != nil:
			return found, m.Error
		case m.Done:
			return found, nil
		case m.Image != nil:
			found = append(found, *m.Image)
		case m.Progress != nil && progress != nil:
			progress(*m.Progress)
		}
	}
	return found, c.transportError(ctx, io.ErrUnexpectedEOF)
}
