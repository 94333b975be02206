package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// stateFormat is the version of the state file. A keeper reads the formats of
// the one before it too.
const stateFormat = 1

// state is what the keeper must know about a container to go on without ever
// having seen it. Its fields are only ever added to.
type state struct {
	Format int    `json:"format"`
	BootID string `json:"boot_id"`
	runtime.Status

	StartTime uint64            `json:"start_time,omitempty"` // of Pid, in clock ticks since boot
	Init      bool              `json:"init"`
	Process   processDefaults   `json:"process"`
	Filter    filterRef         `json:"filter"`
	Log       runtime.LogConfig `json:"log"`
	OOMKills  uint64            `json:"oom_kills"` // the group's count when the run began
	WatchOOM  bool              `json:"watch_oom"`
	Killed    bool              `json:"killed,omitempty"` // we have sent it SIGKILL
	LastOOM   *runtime.OOM      `json:"last_oom,omitempty"`
	OOM       string            `json:"oom,omitempty"` // process, or the whole container

	Terminal    bool `json:"terminal,omitempty"`
	Input       bool `json:"input,omitempty"` // its stdin is a pipe
	InputClosed bool `json:"input_closed,omitempty"`

	StopSignal      string        `json:"stop_signal,omitempty"`
	StopGracePeriod time.Duration `json:"stop_grace_period,omitempty"`
}

// processDefaults is what a further process of the container starts from.
type processDefaults struct {
	Env             []string `json:"env,omitempty"`
	Cwd             string   `json:"cwd,omitempty"`
	UID             int      `json:"uid"`
	GID             int      `json:"gid"`
	Groups          []int    `json:"groups,omitempty"`
	Rlimits         []rlimit `json:"rlimits,omitempty"`
	NoNewPrivileges bool     `json:"no_new_privileges"`
}

// rlimit is one resource limit in the kernel's numbers.
type rlimit struct {
	Type int    `json:"type"`
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// readStates reads all state files of the run folder. What cannot be read is
// reported with the rest still returned.
func readStates(l bundle.Layout) ([]state, []error) {
	names, err := filepath.Glob(filepath.Join(l.Containers(), "*.json"))
	if err != nil {
		return nil, []error{err}
	}
	var states []state
	var errs []error
	for _, name := range names {
		var st state
		err := bundle.ReadJSON(name, &st)
		switch {
		case err != nil:
		case st.Format < 1 || st.Format > stateFormat:
			err = fmt.Errorf("state %s: format %d is not known", name, st.Format)
		case st.ID != strings.TrimSuffix(filepath.Base(name), ".json"):
			err = fmt.Errorf("state %s: belongs to %q", name, st.ID)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		states = append(states, st)
	}
	return states, errs
}

// bootID changes with every boot of the machine.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
