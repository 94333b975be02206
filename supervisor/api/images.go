package api

import "time"

// The wire has image types of its own, so that a client does not link the
// image store and its registry code.

// PullRequest pulls an image. POST /v1/images:pull, answered by JSON lines of
// PullMessage. A caller that goes away does not end the pull; POST
// /v1/operations/ID:abort does.
type PullRequest struct {
	Ref      string `json:"ref"`
	Policy   string `json:"policy,omitempty"`   // missing (the default), always, never, newer
	Platform string `json:"platform,omitempty"` // "linux/arm64"; empty: the host's
}

// PullMessage is one line of a pull; one field is set. The first line has
// Operation, the last one Image or Error.
type PullMessage struct {
	Operation string    `json:"operation,omitempty"` // its id
	Progress  *Progress `json:"progress,omitempty"`
	Image     *Image    `json:"image,omitempty"`
	Error     *Error    `json:"error,omitempty"`
}

// Progress is one step of one layer, or of the image if Layer is empty.
type Progress struct {
	Image string `json:"image"`
	Layer string `json:"layer,omitempty"`
	Step  string `json:"step"`            // resolve, fetch, unpack, commit, exists, done
	Done  int64  `json:"done,omitempty"`  // compressed bytes so far
	Total int64  `json:"total,omitempty"` // of the layer

	// Of the image only; 0: not known yet.
	Rate int64         `json:"rate,omitempty"` // bytes per second
	Left time.Duration `json:"left,omitempty"` // nanoseconds until all is downloaded
}

// Image is one image of the store. GET /v1/images, GET /v1/images/REF, with
// REF escaped as one path segment.
type Image struct {
	Names    []string     `json:"names"`
	Digest   string       `json:"digest"`    // of the manifest
	ConfigID string       `json:"config_id"` // what Docker calls the image ID
	Platform string       `json:"platform"`
	Size     int64        `json:"size"` // compressed bytes
	Created  time.Time    `json:"created,omitzero"`
	PulledAt time.Time    `json:"pulled_at,omitzero"`
	Config   ImageConfig  `json:"config"`
	Layers   []ImageLayer `json:"layers"`
}

// ImageLayer is one layer of an image.
type ImageLayer struct {
	Digest string `json:"digest"`
	DiffID string `json:"diff_id"`
	Size   int64  `json:"size"`
}

// ImageConfig is what the image says about its containers.
type ImageConfig struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"`
	User         string            `json:"user,omitempty"`
	WorkingDir   string            `json:"working_dir,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	Volumes      []string          `json:"volumes,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
}

// ImageRemoval is what a removal did. DELETE /v1/images/REF. With force=1 an
// image that is named by its id loses all its names.
type ImageRemoval struct {
	Untagged []string `json:"untagged"`
	Deleted  []string `json:"deleted"`
	Freed    int64    `json:"freed"`
}
