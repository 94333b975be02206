package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/wherry-run/wherry/cgroup"
)

// Process is one process of a container. GET /v1/containers:top?target=...
type Process struct {
	Instance  string  `json:"instance"`
	Container string  `json:"container"`
	Pid       int     `json:"pid"`        // on the host
	Inside    int     `json:"inside_pid"` // in the container
	Parent    int     `json:"parent_pid"` // on the host
	UID       int64   `json:"uid"`        // in the container; -1: one that it does not know
	State     string  `json:"state"`      // R, S, D, T, Z ... as in proc(5)
	Wait      string  `json:"wait,omitempty"`
	CPU       float64 `json:"cpu_seconds"`
	RSS       int64   `json:"rss"` // bytes
	Threads   int     `json:"threads"`
	Command   string  `json:"command"`
}

// Usage is what one container that runs uses. GET /v1/containers:stats?target=...
type Usage struct {
	At        time.Time `json:"at"`
	Unit      string    `json:"unit"`
	Instance  string    `json:"instance"`
	Container string    `json:"container"`
	Run       string    `json:"run"`
	State     string    `json:"state"` // running, paused

	// CPUPercent is 100 for one processor. The daemon keeps no history: who asks
	// twice fills it in, see [Usage.Since].
	CPUPercent float64 `json:"cpu_percent"`

	cgroup.Stats
	NetReceived *uint64          `json:"net_received,omitempty"` // bytes; nil: it shares the host's network
	NetSent     *uint64          `json:"net_sent,omitempty"`
	Pressure    *cgroup.Pressure `json:"pressure,omitempty"` // its own; nil: the host does not tell
}

// Since fills in what takes two looks. Of another run it is nothing.
func (u *Usage) Since(before Usage) {
	wall := u.At.Sub(before.At)
	if before.Run != u.Run || before.Container != u.Container || wall <= 0 || u.CPUUsec < before.CPUUsec {
		return
	}
	u.CPUPercent = 100 * float64(u.CPUUsec-before.CPUUsec) / float64(wall.Microseconds())
}

// Top lists the processes of the containers that a target names.
func (c *Client) Top(ctx context.Context, target string) (p []Process, err error) {
	return p, c.call(ctx, http.MethodGet, "/containers:top", url.Values{"target": {target}}, nil, &p)
}

// Stats reads what containers use; of all that run without targets.
func (c *Client) Stats(ctx context.Context, targets ...string) (u []Usage, err error) {
	return u, c.call(ctx, http.MethodGet, "/containers:stats", url.Values{"target": targets}, nil, &u)
}
