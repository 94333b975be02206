package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/wherry-run/wherry/cgroup"
)

// ExitRecord is what is kept of the end of a container, or of a start that
// failed, also after the run is gone. GET /v1/units/NAME/exits has a unit's, the newest
// first, or an instance's.
type ExitRecord struct {
	Unit      string    `json:"unit"`
	Instance  string    `json:"instance"`
	Run       string    `json:"run"`
	Container string    `json:"container,omitempty"`
	Revision  int       `json:"revision"`
	StartedAt time.Time `json:"started_at,omitzero"`
	At        time.Time `json:"at"`
	Stopped   bool      `json:"stopped,omitempty"` // it was asked to end

	// Exit is how it ended; nil if the start failed, at Step.
	Exit  *Exit  `json:"exit,omitempty"`
	Step  string `json:"step,omitempty"`
	Error string `json:"error,omitempty"`

	Memory   *MemoryUse       `json:"memory,omitempty"`   // at the end
	Pressure *cgroup.Pressure `json:"pressure,omitempty"` // at the end
	LastOOM  *OOM             `json:"last_oom,omitempty"`

	// Output is what the container wrote last, OutputCut that more of it would not have fitted.
	Output    []OutputLine `json:"output,omitempty"`
	OutputCut bool         `json:"output_cut,omitempty"`
}

// MemoryUse is how much memory was used at most, in bytes; Limit is 0 for none.
type MemoryUse struct {
	Peak  int64 `json:"peak"`
	Limit int64 `json:"limit,omitempty"`
}

// OOM is the last kill for lack of memory in a container: of the main process or another one.
type OOM struct {
	At       time.Time        `json:"at"`
	Kills    uint64           `json:"kills"` // in the run, this one included
	Victim   *Task            `json:"victim,omitempty"`
	Memory   *MemoryUse       `json:"memory,omitempty"`
	Tasks    []Task           `json:"tasks,omitempty"` // the largest first
	Pressure *cgroup.Pressure `json:"pressure,omitempty"`
}

// Task is a process of a container.
type Task struct {
	Pid  int    `json:"pid"`
	Comm string `json:"comm"`
	RSS  int64  `json:"rss"`
}

// OutputLine is a line of a container's output.
type OutputLine struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"`
	Text   string    `json:"text"` // what is no UTF-8 is replaced
}

// Exits are the last ends of a unit's or an instance's containers, the newest first.
func (c *Client) Exits(ctx context.Context, name string) (list []ExitRecord, err error) {
	return list, c.call(ctx, http.MethodGet, "/units/"+url.PathEscape(name)+"/exits", nil, nil, &list)
}
