package api

import "github.com/wherry-run/wherry/supervisor/unit"

// ActResult lists the units a start, stop, restart or rm acted on.
type ActResult struct {
	Units []string `json:"units"`
}

// WaitUp as the state of a WaitRequest waits for more than "running": that all
// instances are of the current revision and stay up for a moment. It fails as
// soon as one does not, though the daemon goes on trying.
const WaitUp = "up"

// WaitRequest waits for units. POST /v1/wait.
type WaitRequest struct {
	Units   []string      `json:"units"`           // names, unique prefixes or globs
	State   string        `json:"state,omitempty"` // running, stopped, ..., or WaitUp; empty: the end for good
	Timeout unit.Duration `json:"timeout,omitempty"`
}

// WaitResult has the units in the order they were asked for. Exit is set when
// the end was waited for.
type WaitResult struct {
	Units []Waited `json:"units"`
}

// Waited is one unit of a WaitResult.
type Waited struct {
	Name string `json:"name"`
	Exit *Exit  `json:"exit,omitempty"`
}
