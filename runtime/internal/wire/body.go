package wire

import (
	"encoding/json"
	"time"

	"github.com/wherry-run/wherry/cgroup"
)

// Versions is a range of protocol versions.
type Versions struct {
	Min uint16 `json:"min"`
	Max uint16 `json:"max"`
}

// HelloRequest opens a connection.
type HelloRequest struct {
	Versions Versions `json:"versions"`
}

// HelloReply says who answers. Instance is new after every exec of the keeper,
// also after an upgrade that keeps the pid.
type HelloReply struct {
	Version  uint16 `json:"version"`
	Pid      int    `json:"pid"`
	Instance string `json:"instance"`
	Build    string `json:"build,omitempty"`

	// Managed says that a service manager runs the keeper, and starts it again.
	Managed bool `json:"managed,omitempty"`

	// Refused is why a binary that should have replaced this one has given way to it again.
	Refused string `json:"refused,omitempty"`
}

// StartRequest carries a runtime.Config. The network namespace, if NetNS is
// set, is the message's only descriptor.
type StartRequest struct {
	Config json.RawMessage `json:"config"`
	NetNS  bool            `json:"netns,omitempty"`
}

// ContainerRequest names a container: Get, Kill, Wait, Remove.
type ContainerRequest struct {
	ID string `json:"id"`
}

// SignalRequest sends a signal to a container's main process.
type SignalRequest struct {
	ID     string `json:"id"`
	Signal string `json:"signal"`
}

// ExecRequest runs a further process. The descriptors that come along are its
// stdin, stdout and stderr, those whose bit is set in Stdio.
type ExecRequest struct {
	ID    string   `json:"id"`
	Args  []string `json:"args"`
	Env   []string `json:"env,omitempty"`
	Cwd   string   `json:"cwd,omitempty"`
	User  string   `json:"user,omitempty"`
	Stdio uint8    `json:"stdio,omitempty"`

	// Console says that the last descriptor is a socket for a terminal's master.
	Console    bool   `json:"console,omitempty"`
	Rows       uint16 `json:"rows,omitempty"`
	Columns    uint16 `json:"columns,omitempty"`
	Privileged bool   `json:"privileged,omitempty"`
	Detach     bool   `json:"detach,omitempty"` // the answer comes once it runs

	// Key is the caller's name for the process: with it an AwaitExec finds it again
	// if the keeper is replaced meanwhile. Empty: nobody will ask.
	Key string `json:"key,omitempty"`
}

// AwaitExecRequest asks for the end of a process that was exec'd under Key.
type AwaitExecRequest struct {
	ID  string `json:"id"`
	Key string `json:"key"`
}

// KeptBody says that a descriptor is kept, and is the message's only one, or that it is
// no longer, and comes without. All that is kept already comes first, and then an empty Name.
type KeptBody struct {
	Name    string `json:"name,omitempty"`
	Dropped bool   `json:"dropped,omitempty"`
}

// GiveBackRequest names the descriptors that come along, in their order.
type GiveBackRequest struct {
	Names []string `json:"names"`
}

// RunRequest names a run.
type RunRequest struct {
	Run string `json:"run"`
}

// UpdateRequest gives a container other limits.
type UpdateRequest struct {
	ID     string        `json:"id"`
	Limits cgroup.Limits `json:"limits"`
}

// NamespacesRequest asks for the namespaces of a run; the reply carries the
// network namespace's descriptor.
type NamespacesRequest struct {
	Run string `json:"run"`
}

// UpgradeRequest asks the keeper to become Binary.
type UpgradeRequest struct {
	Binary string `json:"binary"`
}

// ExamineRequest asks the keeper for its Vitals: after a collection of garbage, and
// with the stacks of its goroutines.
type ExamineRequest struct {
	Collect bool `json:"collect,omitempty"`
	Stacks  bool `json:"stacks,omitempty"`
}

// Vitals is how a process of ours fares.
type Vitals struct {
	Pid        int    `json:"pid"`
	Goroutines int    `json:"goroutines"`
	Heap       uint64 `json:"heap"` // bytes of objects
	Stacks     string `json:"stacks,omitempty"`
}

// Code is an error that the client turns back into one of the runtime's.
type Code string

// The codes. An unknown one is treated as Internal.
const (
	Internal      Code = "internal"
	NotFound      Code = "not_found"
	Exists        Code = "exists"
	NotRunning    Code = "not_running"
	Command       Code = "command"
	NotExecutable Code = "not_executable"
	Canceled      Code = "canceled"
	Busy          Code = "busy"
	NoInput       Code = "no_input"
	Paused        Code = "paused"
	Unsupported   Code = "unsupported"
)

// ErrorReply is a request that failed.
type ErrorReply struct {
	Code    Code   `json:"code"`
	Step    string `json:"step,omitempty"`
	Message string `json:"message"`
}

// ExitSecond is the exit code of a keeper that has found another one at work, which may
// not answer yet: it adopts containers first.
const ExitSecond = 3

// Deadline is how long either side lets the other take to read a message.
const Deadline = 30 * time.Second
