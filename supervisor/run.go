package supervisor

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// record lies beside each run, in runs/RUN/unit.json. It says what the run was
// started as, and is enough to make the unit's part of a lost database again.
type record struct {
	Run      string         `json:"run"`
	Instance string         `json:"instance"`
	Restart  int            `json:"restart,omitempty"`
	At       time.Time      `json:"at"`
	Boot     string         `json:"boot,omitempty"`
	Unit     state.Unit     `json:"unit"`
	Revision state.Revision `json:"revision"`
	// What its containers share, of a run with several: a daemon that comes later
	// starts single ones.
	Shared bool           `json:"shared,omitempty"`
	IDMap  *runtime.IDMap `json:"id_map,omitempty"`
	// NoUserNS is why it has no user namespace.
	NoUserNS string `json:"no_userns,omitempty"`
}

// run is one start of an instance, as observed. Only the loop touches it.
type run struct {
	record
	phase     plan.Phase
	members   []*member              // its containers, in the order of their start
	reason    string                 // of its start
	ready     bool                   // what the containers share is made
	images    map[string]image.Image // of the containers that have not been started
	startedAt time.Time
	endedAt   time.Time
	exit      *runtime.Exit // its own: that of the container which ended it
	end       *plan.RunEnd  // why it ends, unless somebody asked for it
	waits     []plan.ContainerWait
	wake      time.Time // of its containers' back-off
	stopped   bool      // it was asked to end
	until     time.Time // by when, because the host goes down
	calledOff bool      // a shutdown of the host has cancelled a start of it
	failure   string    // of a failed start
	failed    error     // the same, of an essential container
	lease     *network.Lease
	severed   bool // it has lost its network, and was left alone
	gone      bool // nothing of it is left below us
	adjusting adjusting
}

// move takes the run to the next phase; a move the table does not know is a
// bug and changes nothing.
func (r *run) move(next plan.Phase) error {
	p, err := r.phase.To(next)
	if err != nil {
		return fmt.Errorf("run %s: %w", r.Run, err)
	}
	r.phase = p
	return nil
}

// observed is the run as the plan sees it.
func (r *run) observed() plan.Run {
	o := plan.Run{ID: r.Run, Unit: r.Unit.Name, Instance: r.Instance, Revision: r.Revision.Number, Restart: r.Restart,
		Phase: r.phase, StartedAt: r.startedAt, EndedAt: r.endedAt, Code: -1, Stopped: r.stopped, Error: r.failure,
		Limits: unit.LimitsOf(r.Revision.Definition), UpdateAt: r.adjusting.at, Until: r.until}
	if r.any(plan.ContainerStarting) {
		o.Limits = "" // a container that is being made gets those of before; then they can be changed
	}
	if r.exit != nil && r.exit.Signal == "" && !r.exit.Unknown {
		o.Code = r.exit.Code
		o.Clean = r.exit.Code == 0
	} else if r.exit != nil {
		o.Error = exitWords(&api.Exit{Signal: r.exit.Signal, OOM: r.exit.OOM, Unknown: r.exit.Unknown, Cause: r.exit.Cause})
	}
	return o
}

// alphabet of run ids: no letters that look like digits.
const alphabet = "23456789abcdefghjkmnpqrstvwxyz"

// newName makes up a name: prefix, a hyphen and four characters.
func newName(prefix string, taken func(string) bool) string {
	for {
		b := make([]byte, 4)
		_, _ = rand.Read(b) // never fails
		for i := range b {
			b[i] = alphabet[int(b[i])%len(alphabet)]
		}
		if name := prefix + "-" + string(b); !taken(name) {
			return name
		}
	}
}

// writeRecord makes the run's folder. It is not synced: a reboot ends the run.
func writeRecord(p paths, rec record) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	path := p.record(rec.Run)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return err
	}
	// As an exchange: a rename over a file makes ext4 write the new one to disk at once (auto_da_alloc).
	if err := unix.Renameat2(unix.AT_FDCWD, path+".new", unix.AT_FDCWD, path, unix.RENAME_EXCHANGE); err == nil {
		return os.Remove(path + ".new")
	}
	return os.Rename(path+".new", path)
}

// readRecords reads what lies in runs/. A folder without a record that can be
// read is one that a start left before its first step was done; its name has
// an empty record.
func readRecords(p paths) (map[string]record, error) {
	entries, err := os.ReadDir(p.runs())
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	all := map[string]record{}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		all[e.Name()], _ = readRecord(p, e.Name())
	}
	return all, nil
}

// readRecord reads one of them; with an error it is empty.
func readRecord(p paths, run string) (rec record, err error) {
	raw, err := os.ReadFile(p.record(run))
	if err == nil {
		err = json.Unmarshal(raw, &rec)
	}
	if err == nil && (rec.Run != run || len(rec.Revision.Definition.Containers) == 0) {
		err = fmt.Errorf("run %s: its record is of something else", run)
	}
	if err != nil {
		return record{}, err
	}
	return rec, nil
}

// exists is false only if there is certainly nothing at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil || !os.IsNotExist(err)
}
