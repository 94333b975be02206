package runtime

import "time"

// Status is what the kernel and the keeper know about one container. The
// keeper remembers it until Remove, also across its own death.
type Status struct {
	ID        string    `json:"id"`
	Unit      string    `json:"unit"`
	Instance  string    `json:"instance"`
	Run       string    `json:"run"`
	Container string    `json:"container"`
	State     State     `json:"state"`
	Pid       int       `json:"pid,omitempty"` // of the container's PID 1, in the host's PID namespace
	StartedAt time.Time `json:"started_at,omitzero"`
	Exit      *Exit     `json:"exit,omitempty"` // set when State is Exited
	LogPath   string    `json:"log_path,omitempty"`
	Cgroup    string    `json:"cgroup,omitempty"` // path below each hierarchy's root
	Drained   bool      `json:"drained"`          // all output is in the log file
}

// State is the life of one container as the keeper sees it.
type State string

// A container is Creating while its start is under way, Running, then Exited.
// A start that failed leaves nothing and has no status.
const (
	Creating State = "creating"
	Running  State = "running"
	Exited   State = "exited"
)

// Exit tells how a container's main process ended. A signal is never hidden in
// a code: exactly one of Code (Signal empty) and Signal is meaningful, or
// Unknown is true.
type Exit struct {
	Code    int       `json:"code"`
	Signal  string    `json:"signal,omitempty"` // "SIGKILL"
	OOM     bool      `json:"oom,omitempty"`    // the kernel's OOM killer ended it
	Unknown bool      `json:"unknown,omitempty"`
	Cause   string    `json:"cause,omitempty"` // one clause for people
	At      time.Time `json:"at"`
	Memory  *Memory   `json:"memory,omitempty"` // at the end, if it could be read
}

// Memory is the memory accounting of a container's group at its end, in bytes.
type Memory struct {
	Peak  int64 `json:"peak"`
	Limit int64 `json:"limit"` // 0: none
}
