package runtime

import (
	"time"

	"github.com/wherry-run/wherry/cgroup"
)

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
	IDMap     *IDMap    `json:"id_map,omitempty"` // of its user namespace; nil: it has none
	Paused    bool      `json:"paused,omitempty"` // it is Running, but its processes stand still
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

	// Status is the raw wait status, which tells SIGKILL (9) from `exit 137` (137<<8).
	// It means nothing if Unknown is true.
	Status uint32 `json:"status,omitempty"`

	// Pressure is how much the container, or the host, lacked at the end.
	Pressure *cgroup.Pressure `json:"pressure,omitempty"`

	// LastOOM is the last kill for lack of memory in the run, of the main process or another one.
	LastOOM *OOM `json:"last_oom,omitempty"`
}

// OOM is a kill by the kernel for lack of memory in a container's group.
type OOM struct {
	At     time.Time `json:"at"`
	Kills  uint64    `json:"kills"`            // in this run, this one included
	Victim *Task     `json:"victim,omitempty"` // whom it hit, if the kernel's log can be read
	Memory *Memory   `json:"memory,omitempty"`

	// Tasks are what ran in the group, the largest first, at most [MaxTasks]. They are looked up
	// after the kill, so that a victim that has ended already is not among them.
	Tasks    []Task           `json:"tasks,omitempty"`
	Pressure *cgroup.Pressure `json:"pressure,omitempty"`
}

// MaxTasks bounds what is kept of a list of tasks.
const MaxTasks = 20

// Task is a process of a container.
type Task struct {
	Pid  int    `json:"pid"` // in the host's namespace
	Comm string `json:"comm"`
	RSS  int64  `json:"rss"` // bytes
}

// Memory is the memory accounting of a container's group at its end, in bytes.
type Memory struct {
	Peak  int64 `json:"peak"`
	Limit int64 `json:"limit"` // 0: none
}
