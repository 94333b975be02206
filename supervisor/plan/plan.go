package plan

import (
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// Input is all that a plan depends on.
//
// InFlight suppresses new actions. Under an instance's name it suppresses every
// action for the instance; under a run's id every action for that run and,
// unless it is a removal, the start of the instance's next run; under a unit's
// name its Forget. The value is the action's kind. One value is special: a
// start that is only Abortable yet (its image is still being fetched) does not
// suppress a Stop of its run; the caller then aborts the pull.
//
// A run in phase Stopping is taken to be on its way out and gets no second
// Stop. After a restart of the daemon the caller reports such a run as Up
// again, and the plan stops it anew.
type Input struct {
	Desired  []Desired
	Observed []Run               // every run that is not removed yet
	InFlight map[string]string   // instance or run -> the action under way for it
	Memory   map[string]Attempts // by instance
	Shutdown *Shutdown           // the host goes down; nil: it does not
	Now      time.Time
}

// Abortable is the value in Input.InFlight of a start that a Stop may abort.
const Abortable = "pull"

// Desired is a unit's current revision and the operator's intent.
type Desired struct {
	Unit     unit.Unit
	Revision int
	Intent   Intent
	Same     int // the oldest revision whose runs are as good as the current one's; 0: only its own
	Restart  int // raised by `ctl restart`: runs started under a lower number are replaced
}

// Holds tells whether a run of the revision needs no replacement.
func (d Desired) Holds(revision int) bool {
	return revision == d.Revision || d.Same > 0 && d.Same <= revision && revision < d.Revision
}

// Intent of the operator for a unit.
type Intent string

// Removed units are stopped, then forgotten.
const (
	Running Intent = "running"
	Stopped Intent = "stopped"
	Removed Intent = "removed"
)

// Run is one observed run of an instance.
type Run struct {
	ID        string // "web.1-7f3k"
	Unit      string
	Instance  string
	Revision  int
	Restart   int // the Desired.Restart it was started under
	Phase     Phase
	StartedAt time.Time
	EndedAt   time.Time
	Clean     bool      // exited with code 0
	Code      int       // exit code; -1 if a signal or unknown
	Stopped   bool      // it ended because it was asked to: no failure, whatever its code
	Error     string    // of a Failed run: the step and its cause
	Limits    string    // what it has, see unit.LimitsOf; empty: not known, and left alone
	UpdateAt  time.Time // not before: its last Update has failed
	Until     time.Time // of its stop, as a Stop or Hurry has said; zero: its own grace periods
}

// Attempts is what neither kernel nor unit files know about an instance.
// It is kept in the database, so that a back-off survives a daemon restart.
type Attempts struct {
	Failures int         `json:"failures"`           // in a row, without a run of reset_after between
	Last     time.Time   `json:"last,omitzero"`      // when the last run ended or the last start failed
	Starts   []time.Time `json:"starts,omitempty"`   // restarts within the policy's interval, oldest first
	Done     bool        `json:"done,omitempty"`     // ended and the policy says to leave it
	Error    string      `json:"error,omitempty"`    // of the last failed start, or why Done is no success
	Revision int         `json:"revision,omitempty"` // these attempts belong to
	Restart  int         `json:"restart,omitempty"`  // the Desired.Restart they belong to
	Run      string      `json:"run,omitempty"`      // the last run that is counted in
}

// Plan is what to do now and when to look again.
type Plan struct {
	Actions []Action
	Wake    time.Time // zero: only when something changes
	Waiting []Waiting // instances with nothing to do yet, and why
}

// Action is one thing to do. Reason is a sentence for people.
type Action struct {
	Kind     Kind   `json:"kind"`
	Unit     string `json:"unit"`
	Instance string `json:"instance,omitempty"`
	Run      string `json:"run,omitempty"`
	Revision int    `json:"revision,omitempty"`
	Reason   string `json:"reason"`
	// Until is when the run is killed that is to stop; zero: its own grace periods.
	Until time.Time `json:"until,omitzero"`
}

// Kind of an action; Update stands in update.go, Hurry in shutdown.go.
type Kind string

// Start pulls if needed and starts a new run of Instance. Stop ends a run
// gracefully. Remove cleans up an ended run. Forget deletes a removed unit
// that has no run left.
const (
	Start  Kind = "start"
	Stop   Kind = "stop"
	Remove Kind = "remove"
	Forget Kind = "forget"
)

// Waiting says why nothing is done for an instance yet. The reason stays the
// same while it waits: the time left is Until less now.
type Waiting struct {
	Unit     string    `json:"unit"`
	Instance string    `json:"instance"`
	Until    time.Time `json:"until,omitzero"` // zero: until something changes
	Reason   string    `json:"reason"`
}
