package supervisor

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// recover builds the loop from what is wanted (the database) and what is (the
// keeper, the folders of runs), and sets the removal of leftovers going.
func (s *Supervisor) recover(ctx context.Context) (*loop, error) {
	l := &loop{Supervisor: s, boot: bootID(), units: map[string]*wanted{}, runs: map[string]*run{}, attempts: map[string]state.Attempts{},
		work: map[string]*work{}, pending: map[string]api.Pending{}, auto: map[string]bool{},
		starting: map[string]int{}, failed: map[string]int{}, failures: map[string]error{},
		stale: newStale(), ctx: ctx, pulls: make(chan struct{}, pullsAtOnce)}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("state %s: %w", s.paths.state(), err)
	}
	found, err := s.rt.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	found = s.endDebugs(ctx, found)
	records, err := readRecords(s.paths)
	if err != nil {
		return nil, err
	}
	s.emptyTrash()
	l.keeperSeen = s.rt.KeeperPid()
	leftovers := l.adopt(found, records)
	var live []string
	for id, r := range l.runs {
		if !r.phase.Ended() {
			live = append(live, id)
		}
	}
	slices.Sort(live)
	severed := s.judge(ctx, s.net.Repair(ctx, live))
	for _, lease := range s.net.Leases() {
		if r := l.runs[lease.Run]; r != nil && !r.phase.Ended() {
			r.lease = &lease
		}
	}
	for _, m := range severed {
		m.handle(l)
	}
	l.keepIDs(leftovers)
	if err := l.strayLeases(leftovers); err != nil {
		return nil, err
	}
	l.forgetUnsaved(leftovers, records)
	l.removeLeftovers(ctx, leftovers, records)
	return l, nil
}

// holdLimit is how long a leftover that cannot be removed holds up its instance.
const holdLimit = 30 * time.Second

// removeLeftovers sets their removal going. An instance starts nothing until its leftovers are gone: the keeper may be
// about to start what the last daemon asked for, and two runs would work on the same volumes.
func (l *loop) removeLeftovers(ctx context.Context, leftovers map[string]bool, records map[string]record) {
	holds := map[string]*sync.WaitGroup{} // by instance
	for _, id := range slices.Sorted(maps.Keys(leftovers)) {
		l.event(api.Event{Type: event.Cleanup, Run: id, Message: "left unfinished, and removed"})
		letGo := func() {}
		if rec := records[id]; l.units[rec.Unit.Name] != nil {
			hold := holds[rec.Instance]
			if hold == nil {
				hold = &sync.WaitGroup{}
				holds[rec.Instance] = hold
				l.begin(rec.Unit.Name, rec.Instance, string(plan.Remove))
			}
			hold.Add(1)
			letGo = sync.OnceFunc(hold.Done)
			time.AfterFunc(holdLimit, letGo)
		}
		l.wg.Go(func() {
			defer letGo()
			if err := (cleanup{s: l.Supervisor, run: id}).untilDone(ctx); err != nil {
				l.post(removed{id, err})
			}
		})
	}
	for instance, hold := range holds {
		l.wg.Go(func() {
			hold.Wait()
			l.post(leftoversGone(instance))
		})
	}
}

// leftoversGone says that an instance may start again.
type leftoversGone string

func (m leftoversGone) handle(l *loop) {
	l.finish(string(m))
	for _, r := range l.runs { // one that runs beside them may have ended meanwhile
		if r.Instance == string(m) {
			l.conduct(r)
		}
	}
}

// forgetUnsaved deletes what units have left that ended with their run before
// anything of them was in the database.
func (l *loop) forgetUnsaved(leftovers map[string]bool, records map[string]record) {
	for id := range leftovers {
		rec := records[id]
		if !rec.Unit.AutoRemove || l.units[rec.Unit.Name] != nil {
			continue
		}
		if err := l.forget(rec.Unit.Name); err != nil {
			l.log.Warn("logs not removed", "unit", rec.Unit.Name, "err", err)
		}
	}
}

// load reads the database.
func (l *loop) load() error {
	all, err := l.store.Load()
	if err != nil {
		return err
	}
	l.attempts, l.files = all.Attempts, all.Files
	for name, rec := range all.Units {
		w := l.newWanted(rec, all.Revisions[name])
		if w.revision() == nil {
			return fmt.Errorf("unit %s: revision %d is missing", name, rec.Revision)
		}
		l.setUnit(name, w)
	}
	return nil
}

func (l *loop) newWanted(rec state.Unit, revs []state.Revision) *wanted {
	l.serial++
	if rec.AutoRemove {
		l.auto[rec.Name] = true
	}
	return &wanted{rec: rec, revs: revs, serial: l.serial, readers: new(atomic.Int32)}
}

// adopt takes over the runs that the keeper knows and returns the ids of those
// that nobody can use.
//
// A run of which a container has been started goes on from there, whether it was up,
// half started or half stopped: what is missing is started or stopped by the plan as if
// the daemon had been there all the time. A container that was being made at the daemon's
// death is undone and made again; a run that has nothing else is undone as a whole.
func (l *loop) adopt(found []runtime.Status, records map[string]record) map[string]bool {
	leftovers := map[string]bool{}
	known := map[string][]runtime.Status{}
	for _, st := range found {
		known[st.Run] = append(known[st.Run], st)
	}
	for _, id := range slices.Sorted(maps.Keys(known)) {
		if rec := records[id]; rec.Run == "" || !usable(&rec, known[id]) || exists(l.paths.removing(id)) {
			leftovers[id] = true
			continue
		}
		l.adoptRun(records[id], known[id])
	}
	for id, rec := range records {
		if known[id] != nil {
			continue
		}
		leftovers[id] = true
		if rec.Run != "" && rec.Boot != l.boot && l.units[rec.Unit.Name] != nil {
			l.rebooted(rec)
		}
	}
	return leftovers
}

// usable tells whether the run can go on with what the keeper knows of it.
func usable(rec *record, found []runtime.Status) bool {
	settled := false
	for _, st := range found {
		if rec.Revision.Definition.Container(st.Container) == nil {
			return false
		}
		settled = settled || st.State != runtime.Creating
	}
	return settled
}

// adoptRun makes a run of what is found of it.
func (l *loop) adoptRun(rec record, found []runtime.Status) {
	l.progress("takes over what runs")
	l.rebuild(rec)
	r := &run{record: rec, phase: plan.Up, ready: true, reason: "found half started"}
	r.members = newMembers(&r.record)
	l.addRun(r)
	for _, m := range r.members {
		if a := l.attempts[r.attemptsKey(m)]; a.Within == rec.Run {
			m.attempts, m.restarts, m.again = a.Attempts, a.Restarts, true
		}
	}
	ended := map[*member]*runtime.Exit{}
	for _, st := range found {
		m := r.member(st.Container)
		m.again = true
		if st.State == runtime.Creating {
			continue
		}
		m.phase = plan.ContainerUp
		m.started(st)
		if st.StartedAt.IsZero() {
			m.startedAt = rec.At
		}
		if st.State == runtime.Exited && st.Exit != nil {
			ended[m] = st.Exit
		}
	}
	for _, m := range r.members {
		if !m.began && rec.Revision.Definition.Essential(m.def) {
			r.phase = plan.Starting
		}
	}
	if r.phase == plan.Up {
		l.noteStarted(r)
	}
	if len(ended) < len(r.members) {
		l.event(api.Event{Type: event.Adopt, Unit: rec.Unit.Name, Instance: rec.Instance, Run: rec.Run,
			Message: map[bool]string{true: "found running", false: "found half started"}[r.phase == plan.Up],
			Fields:  map[string]any{"pid": r.leading().status.Pid}})
	}
	w := l.units[rec.Unit.Name].desired()
	for m := range ended {
		// What is to go was asked to end, and what is to be replaced most likely, too, if it comes to an end: it has not crashed.
		outdated := rec.Revision.Definition.Essential(m.def) && (!w.Holds(rec.Revision.Number) || rec.Restart < w.Restart)
		r.stopped = r.stopped || w.Intent != plan.Running || outdated
	}
	if a := l.attempts[rec.Instance]; a.Ended != nil && a.Ended.Run == rec.Run { // counted by an earlier daemon, which knew why
		r.stopped = a.Ended.Stopped
		if x := ended[r.members[0]]; x != nil && !r.several() {
			x.Cause = a.Ended.Cause
		}
	}
	l.adoptExits(r, ended)
	l.resumeHooks(r)
}

// adoptExits counts what ended while no daemon was there, each end once.
func (l *loop) adoptExits(r *run, ended map[*member]*runtime.Exit) {
	// All are known before the first is judged: the run's end is that of the
	// one that ended first.
	r.ready = false
	for _, m := range r.members {
		if x := ended[m]; x != nil {
			if r.several() && m.attempts.Run == startKey(r.Run, m) { // counted, and told, by an earlier daemon
				_ = m.move(plan.ContainerExited)
				m.ended(*x)
				continue
			}
			l.memberEnded(r, m, *x)
		}
	}
	r.ready = true
	if r.several() {
		l.setWake(r, time.Now()) // once the loop runs, it goes on
	} else {
		l.conduct(r)
	}
}

// rebooted counts a run that a reboot ended: what is to run once does not run
// again because the host went down.
func (l *loop) rebooted(rec record) {
	r := &run{record: rec, members: newMembers(&rec), phase: plan.Exited, startedAt: rec.At, endedAt: time.Now(),
		exit: &runtime.Exit{Unknown: true, Cause: "the host was restarted"}}
	l.count(r)
}

// rebuild makes the unit of a run again, if the database does not know it.
func (l *loop) rebuild(rec record) {
	w := l.units[rec.Unit.Name]
	if w != nil && (!w.rebuilt || w.rec.Revision >= rec.Revision.Number) {
		return
	}
	w = l.newWanted(rec.Unit, []state.Revision{rec.Revision})
	w.rec.Revision, w.rebuilt = rec.Revision.Number, true
	l.setUnit(rec.Unit.Name, w)
	l.saveUnit(w, rec.Revision)
}

// strayLeases releases images that no run holds.
func (l *loop) strayLeases(leftovers map[string]bool) error {
	leases, err := l.img.Leases()
	if err != nil {
		return fmt.Errorf("image leases: %w", err)
	}
	for _, id := range leases {
		run, _ := splitID(id)
		if l.runs[id] != nil || leftovers[id] || l.runs[run] != nil || leftovers[run] {
			continue
		}
		if err := l.img.Release(id); err != nil {
			return fmt.Errorf("image lease %s: %w", id, err)
		}
	}
	return nil
}

// bootID tells one boot of the host from another.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
