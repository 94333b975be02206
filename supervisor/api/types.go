package api

import (
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// Version is the API's version, the first part of every path.
const Version = "v1"

// Info is the daemon itself. GET /v1/info.
type Info struct {
	Version    string    `json:"version"`
	Pid        int       `json:"pid"`
	KeeperPid  int       `json:"keeper_pid"` // 0: away
	StartedAt  time.Time `json:"started_at"`
	Root       string    `json:"root"`
	RunDir     string    `json:"run_dir"`
	Cgroup     string    `json:"cgroup"`      // parent group of all containers
	CgroupMode string    `json:"cgroup_mode"` // unified, legacy
	Bridge     string    `json:"bridge"`
	Subnet     string    `json:"subnet,omitempty"`
	Warnings   []string  `json:"warnings,omitempty"`

	ShutdownBudget unit.Duration `json:"shutdown_budget,omitempty"` // see ShutdownRequest
	LastEvent      uint64        `json:"last_event,omitempty"`      // the number of it

	// Registries that said how many pulls are left, or to wait.
	Registries []RateLimit `json:"registries,omitempty"`
	Disk       *Disk       `json:"disk,omitempty"`    // of Root's file system
	LastGC     *LastGC     `json:"last_gc,omitempty"` // nil: none yet
}

// LastGC is the latest garbage collection of images that did something.
type LastGC struct {
	At     time.Time `json:"at"`
	Images int       `json:"images"` // how many went
	Freed  int64     `json:"freed"`  // bytes
}

// Unit is one unit as it is now. GET /v1/units.
type Unit struct {
	Name      string            `json:"name"`
	Kind      string            `json:"kind"`
	State     string            `json:"state"`  // plan.State's words
	Intent    string            `json:"intent"` // running, stopped, removed
	Revision  int               `json:"revision"`
	Image     string            `json:"image"`
	Command   []string          `json:"command,omitempty"`
	Network   string            `json:"network"`
	Replicas  int               `json:"replicas"`
	Running   int               `json:"running"`
	Restarts  int               `json:"restarts"`
	CreatedAt time.Time         `json:"created_at"`       // of the first revision
	Since     time.Time         `json:"since,omitzero"`   // of the state
	Reason    string            `json:"reason,omitempty"` // why it is not running, one sentence
	Ports     []unit.Port       `json:"ports,omitempty"`  // random ones as they are, or between two runs as they were; 0 before the first
	Labels    map[string]string `json:"labels,omitempty"`
	Pending   *Pending          `json:"pending,omitempty"` // a file that was not applied, and why
	Instances []Instance        `json:"instances"`
}

// Pending is a proposal that is not the current revision.
type Pending struct {
	Source string `json:"source"`
	Reason string `json:"reason"`
}

// Instance is one slot of a unit.
type Instance struct {
	Name      string    `json:"name"`
	State     string    `json:"state"`
	Run       string    `json:"run,omitempty"`
	Revision  int       `json:"revision,omitempty"`
	Pid       int       `json:"pid,omitempty"`
	Address   string    `json:"address,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Restarts  int       `json:"restarts"`
	Attempt   int       `json:"attempt,omitempty"` // failures in a row
	NextTry   time.Time `json:"next_try,omitzero"` // of a back-off
	Reason    string    `json:"reason,omitempty"`
	Error     string    `json:"error,omitempty"` // of the last failed start
	Exit      *Exit     `json:"exit,omitempty"`  // of the current or last run
	LogPath   string    `json:"log_path,omitempty"`
	Cgroup    string    `json:"cgroup,omitempty"`
	UserNS    string    `json:"userns,omitempty"` // the user namespace of the current run; "none: ..." says why it has none

	Containers []Container `json:"containers,omitempty"` // of the current or last run, in the order of their start
}

// Container is one container of an instance.
type Container struct {
	Name      string    `json:"name"`
	State     string    `json:"state"` // waiting, starting, running, stopping, completed, exited, backoff, failed
	Image     string    `json:"image"`
	Digest    string    `json:"image_digest,omitempty"`
	Essential bool      `json:"essential"`
	Pid       int       `json:"pid,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Restarts  int       `json:"restarts"`          // within the run
	Attempt   int       `json:"attempt,omitempty"` // failures in a row
	NextTry   time.Time `json:"next_try,omitzero"`
	Reason    string    `json:"reason,omitempty"` // why it does not run
	Exit      *Exit     `json:"exit,omitempty"`
	LogPath   string    `json:"log_path,omitempty"`
	Cgroup    string    `json:"cgroup,omitempty"`
}

// Exit is how a container ended: a signal is never hidden in a code.
type Exit struct {
	Code    int       `json:"code"`
	Signal  string    `json:"signal,omitempty"`
	OOM     bool      `json:"oom,omitempty"`
	Unknown bool      `json:"unknown,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	At      time.Time `json:"at"`

	// Status is the raw wait status: SIGKILL is 9, `exit 137` is 35072.
	Status uint32 `json:"status,omitempty"`
}

// UnitDetail is a unit with its definition. GET /v1/units/NAME.
type UnitDetail struct {
	Unit
	Definition unit.Unit               `json:"definition"`
	Source     string                  `json:"source,omitempty"` // where the text came from
	Text       string                  `json:"text,omitempty"`   // the unit file as applied
	Revisions  []Revision              `json:"revisions"`        // newest first
	Digest     string                  `json:"image_digest,omitempty"`
	Digests    map[string]string       `json:"image_digests,omitempty"` // by container, if there are several
	Stale      bool                    `json:"image_stale,omitempty"`   // the registry did not answer, it is what was here
	Stats      map[string]cgroup.Stats `json:"stats,omitempty"`         // by instance
}

// Revision is one immutable version of a unit.
type Revision struct {
	Number    int               `json:"number"`
	AppliedAt time.Time         `json:"applied_at"`
	By        string            `json:"by"` // "alice (uid 1000, pid 812)", "units folder"
	Source    string            `json:"source,omitempty"`
	Digest    string            `json:"image_digest,omitempty"`
	Digests   map[string]string `json:"image_digests,omitempty"` // by container, if there are several
}

// File is a unit file as the caller has it. Files are what it refers to
// (env files), by the name it uses. Dir is where its relative paths start; empty:
// the folder of Source.
type File struct {
	Source string            `json:"source"` // path, or "-", for messages
	Dir    string            `json:"dir,omitempty"`
	Text   string            `json:"text"`
	Files  map[string]string `json:"files,omitempty"`
}

// ApplyRequest asks for units to become what the files say. POST /v1/apply.
// It is all or nothing: one invalid file and nothing changes.
type ApplyRequest struct {
	Files  []File `json:"files"`
	DryRun bool   `json:"dry_run,omitempty"` // `ctl diff`
	Again  bool   `json:"again,omitempty"`   // also when the content equals what was rolled back
}

// ApplyResult is what an apply does or would do.
type ApplyResult struct {
	Units    []UnitChange  `json:"units"`
	Warnings []string      `json:"warnings,omitempty"`
	Actions  []plan.Action `json:"actions,omitempty"` // the plan's first actions after it
}

// UnitChange is one unit of an apply.
type UnitChange struct {
	Unit     string        `json:"unit"`
	Change   string        `json:"change"` // create, update, unchanged
	Revision int           `json:"revision"`
	Fields   []unit.Change `json:"fields,omitempty"`
}

// ActRequest is start, stop, restart or rm. POST /v1/units:VERB.
type ActRequest struct {
	Units   []string      `json:"units"` // names, prefixes or globs; for rm exact names unless Glob
	All     bool          `json:"all,omitempty"`
	Glob    bool          `json:"glob,omitempty"`
	Force   bool          `json:"force,omitempty"`   // rm: of a running unit, killed at once
	NoWait  bool          `json:"no_wait,omitempty"` // do not wait for the effect
	Timeout unit.Duration `json:"timeout,omitempty"` // stop: instead of the unit's grace period; wait limit otherwise
}

// RunRequest starts a unit made of flags. POST /v1/run. The answer is a stream
// of frames (see frame.go): progress and created as control frames, output if
// Attach, and last an exit or an error.
type RunRequest struct {
	Unit   unit.Unit `json:"unit"` // Name empty: one is made up
	Attach bool      `json:"attach,omitempty"`
	Remove bool      `json:"remove,omitempty"` // --rm
	Size   *Size     `json:"size,omitempty"`   // of its terminal, if it has one
}

// ExecRequest runs a process in a running instance. POST /v1/exec, answered by
// a stream of frames.
type ExecRequest struct {
	Target string   `json:"target"` // see SplitTarget
	Args   []string `json:"args"`
	Env    []string `json:"env,omitempty"`
	User   string   `json:"user,omitempty"`
	Cwd    string   `json:"cwd,omitempty"`

	Privileged bool `json:"privileged,omitempty"` // all capabilities, and no seccomp filter
	Detach     bool `json:"detach,omitempty"`     // the answer comes once it runs; its output is dropped

	// With an upgraded connection alone, see Client.ExecStream.
	Stdin bool  `json:"stdin,omitempty"` // otherwise it has no input
	TTY   bool  `json:"tty,omitempty"`   // on a terminal of its own
	Size  *Size `json:"size,omitempty"`  // of the terminal
}

// LogsRequest selects output. GET /v1/logs, answered by frames, or JSON lines
// of LogLine with format=json.
type LogsRequest struct {
	Target   string    `json:"target"`         // see SplitTarget
	More     []string  `json:"more,omitempty"` // further targets, all merged by time
	Follow   bool      `json:"follow,omitempty"`
	Whole    bool      `json:"-"`              // of a follow, within the process: miss nothing, see runtime.LogOptions
	Tail     int       `json:"tail,omitempty"` // so many lines of the end, of all targets together; 0: all
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	Previous bool      `json:"previous,omitempty"` // of each instance the run before the one that is up
	After    []string  `json:"after,omitempty"`    // cursors, see Cursor: only what comes behind them
}

// LogLine is one record of output.
type LogLine struct {
	Unit      string    `json:"unit"`
	Instance  string    `json:"instance"`
	Container string    `json:"container,omitempty"` // if the run has several
	Run       string    `json:"run,omitempty"`
	Time      time.Time `json:"time"`
	Stream    string    `json:"stream"`
	Partial   bool      `json:"partial,omitempty"`
	Text      []byte    `json:"text"`
	Cursor    string    `json:"cursor,omitempty"` // behind this line, for LogsRequest.After
}

// Event is something that happened. GET /v1/events?since=SEQ&follow=1 gives
// JSON lines; Seq only grows, also across daemon restarts.
type Event struct {
	Seq       uint64         `json:"seq"`
	Time      time.Time      `json:"time"`
	Type      string         `json:"type"` // supervisor/event lists them
	Unit      string         `json:"unit,omitempty"`
	Instance  string         `json:"instance,omitempty"`
	Run       string         `json:"run,omitempty"`
	Container string         `json:"container,omitempty"` // if it concerns one of several
	Step      string         `json:"step,omitempty"`
	Message   string         `json:"message"`
	Exit      *Exit          `json:"exit,omitempty"`
	By        string         `json:"by,omitempty"`
	Fields    map[string]any `json:"fields,omitempty"`
}

// ReloadResult says what a reload of wherry.yaml did. POST /v1/reload.
type ReloadResult struct {
	Applied      []string `json:"applied"`
	NeedsRestart []string `json:"needs_restart"`
}
