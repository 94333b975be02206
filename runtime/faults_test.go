package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// faultyKeeper builds a keeper that can be made to fail: see keeper/faults_on.go.
var faultyKeeper = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("WHERRY_TEST_FAULTY_KEEPER"); bin != "" {
		return bin, nil
	}
	bin := filepath.Join(filepath.Dir(builtKeeper), "wherry-keeper-faulty")
	cmd := exec.Command("go", "build", "-tags", "faults seccomp netgo osusergo",
		"-ldflags", `-s -w -extldflags "-static"`, "-o", bin, "../cmd/wherry-keeper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

// faultPoints reads the names from the keeper's source: a point that is added is tested.
func faultPoints(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("keeper/faults.go")
	if err != nil {
		t.Fatalf("the keeper's source is not here: %v", err)
	}
	var points []string
	for _, m := range regexp.MustCompile(`(?m)^\tat\w+\s+point = "([a-z-]+)"`).FindAllStringSubmatch(string(b), -1) {
		if !slices.Contains([]string{"adopt", "input-kept", "root-read"}, m[1]) { // they are no part of every life
			points = append(points, m[1])
		}
	}
	if len(points) < 25 {
		t.Fatalf("only %d points: %v", len(points), points)
	}
	return points
}

// newFaultyWorld is a world whose keeper can be made to fail.
func newFaultyWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	bin, err := faultyKeeper()
	if err != nil {
		t.Fatal(err)
	}
	pid := w.rt.KeeperPid()
	if err := w.rt.StopKeeper(w.ctx()); err != nil {
		t.Fatal(err)
	}
	w.gone(pid)
	w.rt = w.open(bin)
	return w
}

// set makes the keeper do action at point, once. The result tells whether it has got there.
func (w *world) set(point, action string) (reached func() bool) {
	w.tb.Helper()
	file := filepath.Join(w.run, "fault")
	os.Remove(file + ".reached")
	if err := os.WriteFile(file+".new", []byte(point+" "+action+"\n"), 0o600); err != nil {
		w.tb.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		w.tb.Fatal(err)
	}
	return func() bool {
		_, err := os.Stat(file)
		return err != nil
	}
}

// TestFaults fails and kills at every point of a container's life, and then
// looks whether anything is left, or lost.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("more than a hundred containers")
	}
	points := faultPoints(t)
	w := newFaultyWorld(t)
	for _, action := range []string{"fail", "kill", "init", "caller"} {
		for _, point := range points {
			t.Run(action+"/"+point, func(t *testing.T) { w.on(t).life(point, action) })
		}
	}
}

// life is a container's life with one fault in it: start, exec, stop or kill, remove.
func (w *world) life(point, action string) {
	c := w.config("sh", "-c", "trap 'i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; done; exit 7' TERM; while true; do sleep 0.01; done")
	byHand := strings.HasPrefix(point, "stop-kill") // points on the way of a kill
	if point == "undo" {
		c.Spec.Process.Args = []string{"/no/such/program"}
	}
	word := action
	if action == "caller" {
		word = "hold"
	}
	reached := w.set(point, word)
	if action == "caller" {
		w.killCallerAt(c, byHand)
	} else {
		w.live(w.rt, c, byHand)
	}
	if !reached() {
		w.tb.Errorf("%s was not reached", point)
		os.Remove(filepath.Join(w.run, "fault"))
	}
	// Whatever has happened: what is there can be ended and removed.
	st, err := w.rt.Get(w.ctx(), c.ID())
	if err == nil && st.State == runtime.Creating { // what could not be undone is tried again
		w.rt.Remove(w.ctx(), c.ID())
		st, err = w.rt.Get(w.ctx(), c.ID())
	}
	if err == nil {
		if st.State == runtime.Running {
			w.rt.Signal(w.ctx(), c.ID(), "TERM")
		}
		exit, werr := w.rt.Wait(w.ctx(), c.ID())
		switch {
		case errors.Is(werr, runtime.ErrNotFound): // its removal went on
		case werr != nil:
			w.tb.Fatalf("wait: %v\n%s", werr, w.keeperLog())
		default:
			w.checkEnd(c, exit, byHand || action == "init")
		}
		if err := w.rt.Remove(w.ctx(), c.ID()); err != nil {
			w.tb.Errorf("remove: %v", err)
		}
	} else if !errors.Is(err, runtime.ErrNotFound) {
		w.tb.Errorf("get: %v", err)
	}
	w.await("nothing to be left", func() bool { return len(w.left(c)) == 0 })
	if left := w.left(c); len(left) > 0 {
		w.tb.Errorf("left: %v", left)
	}
}

// live is what a caller does. It goes on after errors, as one who wants to be rid of the container does.
func (w *world) live(rt *runtime.Runtime, c runtime.Config, byHand bool) {
	ctx := w.ctx()
	if _, err := rt.Start(ctx, c); err != nil && !errors.Is(err, runtime.ErrKeeper) {
		var se *runtime.StepError
		if !errors.As(err, &se) {
			w.tb.Errorf("start: %v names no step", err)
		}
		return
	}
	rt.Exec(ctx, c.ID(), runtime.Process{Args: []string{"true"}})
	if byHand {
		if err := rt.Kill(ctx, c.ID()); err != nil {
			return
		}
	} else if err := rt.Signal(ctx, c.ID(), "TERM"); err != nil {
		return
	}
	exit, err := rt.Wait(ctx, c.ID())
	if err != nil {
		return
	}
	if rt.Remove(ctx, c.ID()) == nil {
		w.checkEnd(c, exit, byHand || exit.Signal == "SIGKILL")
	}
}

// checkEnd: a code is true and the output is whole, or it was a SIGKILL that cut it short.
func (w *world) checkEnd(c runtime.Config, exit runtime.Exit, killed bool) {
	w.tb.Helper()
	switch {
	case exit.Unknown:
		w.tb.Errorf("exit = %+v, want to know it\n%s", exit, w.keeperLog())
	case exit.Signal == "SIGKILL" && killed:
	case exit.Signal == "SIGTERM":
		// The signal came before the shell had set its trap.
	case exit.Code != 7 || exit.Signal != "":
		w.tb.Errorf("exit = %+v, want 7\n%s", exit, w.keeperLog())
	default:
		// A piece may be there twice, where a keeper was killed.
		text, last := w.text(c), 0
		for line := range strings.Lines(text) {
			n := 0
			if fmt.Sscan(line, &n); n > last+1 {
				w.tb.Errorf("output: a gap, %d after %d", n, last)
			}
			last = max(last, n)
		}
		if last != 300 {
			w.tb.Errorf("output ends with %d, want 300", last)
		}
	}
}

// killCallerAt runs a container's life and drops the connection as soon as the point is reached, as the death of the caller does.
func (w *world) killCallerAt(c runtime.Config, byHand bool) {
	file := filepath.Join(w.run, "fault")
	caller, err := runtime.Open(w.ctx(), runtime.Options{Root: w.root, RunDir: w.run, Keeper: "/no/such/keeper", CgroupParent: w.group})
	if err != nil {
		w.tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.live(caller, c, byHand)
	}()
	over := func() bool {
		select {
		case <-done:
			return true
		default:
			_, err := os.Stat(file + ".reached")
			return err == nil
		}
	}
	w.await("the point", over)
	caller.Close()
	os.Remove(file + ".reached")
	<-done
	// The keeper may be at its start or its undoing still.
	w.await("the keeper to be done with it", func() bool {
		st, err := w.rt.Get(context.Background(), c.ID())
		return errors.Is(err, runtime.ErrNotFound) || err == nil && st.State != runtime.Creating
	})
}

// left are all traces of c but its log.
func (w *world) left(c runtime.Config) []string {
	left := w.traces(c)
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), c.Run) {
		left = append(left, "a mount")
	}
	// A keeper's child that is not a container's is a stray. This is the only container.
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", w.rt.KeeperPid()))
	for _, f := range children {
		if b, _ := os.ReadFile(f); len(b) > 0 {
			left = append(left, "children "+string(b))
		}
	}
	return left
}

// TestUpgradeGivesWay: a binary that has passed its check but then cannot take
// over gives way to the one that was here.
func TestUpgradeGivesWay(t *testing.T) {
	w := newWorld(t)
	bin, err := faultyKeeper()
	if err != nil {
		t.Fatal(err)
	}
	c := counter(w)
	st := w.start(c)
	keeper := w.rt.KeeperPid()
	var out [2]*os.File
	if out[0], out[1], err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	defer out[0].Close()
	defer out[1].Close()
	type result struct {
		exit runtime.Exit
		err  error
	}
	done := make(chan result, 1)
	go func() {
		exit, err := w.rt.Exec(w.ctx(), c.ID(), runtime.Process{Args: []string{"sh", "-c", "echo up; read x; exit 3"}, Stdin: out[0]})
		done <- result{exit, err}
	}()
	w.await("the exec", func() bool { r, _ := filepath.Glob(w.run + "/containers/*.exec"); return len(r) == 1 })
	w.set("adopt", "fail")
	err = w.rt.Upgrade(w.ctx(), bin)
	if err == nil || !strings.Contains(err.Error(), "given way") || !strings.Contains(err.Error(), "fault adopt") {
		t.Errorf("upgrade: %v, want that it has given way\n%s", err, w.keeperLog())
	}
	now, err := w.rt.Get(t.Context(), c.ID())
	if err != nil || now.Pid != st.Pid || w.rt.KeeperPid() != keeper {
		t.Errorf("afterwards: %+v, %v, keeper %d, was %d", now, err, w.rt.KeeperPid(), keeper)
	}
	same := func(pid int) bool {
		a, aerr := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		b, berr := os.Stat(builtKeeper)
		return aerr == nil && berr == nil && os.SameFile(a, b)
	}
	if !same(keeper) {
		t.Error("it is not the old binary that runs")
	}
	out[1].WriteString("go\n")
	if got := <-done; got.err != nil || got.exit.Code != 3 {
		t.Errorf("the exec: %+v, %v", got.exit, got.err)
	}
	w.goesOn(t, c)
	if err := w.rt.Upgrade(w.ctx(), bin); err != nil { // the second time nothing is in its way
		t.Errorf("upgrade: %v", err)
	}
	if err := unix.Kill(w.rt.KeeperPid(), 0); err != nil {
		t.Error(err)
	}
	if err := w.rt.Kill(w.ctx(), c.ID()); err != nil {
		t.Fatal(err)
	}
	w.finish(c)
	checkSequence(t, c)
	// The harness takes an error in the log for trouble; this one was wanted.
	os.Truncate(filepath.Join(w.run, "keeper.log"), 0)
}

// TestNoOutputIsOlderThanItsStart: who reads the output since a start, as the record of
// an end does, misses none of a program that was faster than the keeper.
func TestNoOutputIsOlderThanItsStart(t *testing.T) {
	w := newFaultyWorld(t)
	c := w.config("sh", "-c", "echo early")
	reached := w.set("start-execed", "hold")
	started := make(chan runtime.Status, 1)
	go func() { started <- w.start(c) }()
	w.await("the output", func() bool { return reached() && w.text(c) == "early\n" })
	if err := os.Remove(filepath.Join(w.run, "fault.reached")); err != nil {
		t.Fatal(err)
	}
	st := <-started
	for line, err := range runtime.ReadLog(t.Context(), c.Log.Path, runtime.LogOptions{}) {
		if err != nil || line.Time.Before(st.StartedAt) {
			t.Errorf("started at %v, %q at %v, %v", st.StartedAt, line.Text, line.Time, err)
		}
	}
	w.finish(c)
}

// TestOOMMeetsTheStart: a program that runs out of memory before the keeper knows that it runs is dealt with as any other.
func TestOOMMeetsTheStart(t *testing.T) {
	w := newFaultyWorld(t)
	for _, of := range []string{"", "process"} {
		c := w.limited(cgroup.Limits{Memory: 32 << 20}, "sh", "-c", eat(400)+"; exec sleep 1000")
		c.OOM = of
		events := w.rt.Events(w.ctx())
		<-events
		reached := w.set("start-execed", "hold")
		started := make(chan runtime.Status, 1)
		go func() { started <- w.start(c) }()
		w.await("the kill", func() bool {
			st, err := w.rt.Get(w.ctx(), c.ID())
			if err != nil || !reached() {
				return false
			}
			kills, err := (cgroup.Group{Path: st.Cgroup}).OOMKills()
			return err == nil && kills > 0 && w.busyWith("(*Keeper).oomKilled.func")
		})
		if err := os.Remove(filepath.Join(w.run, "fault.reached")); err != nil {
			t.Fatal(err)
		}
		<-started
		if of == "process" {
			if e := <-events; e.Type != runtime.EventOOM || e.ID != c.ID() || e.Status.State != runtime.Running {
				t.Errorf("event = %+v, want an OOM kill in a living container", e)
			}
			w.kill(c)
		} else if exit := w.finish(c); exit.Signal != "SIGKILL" || !exit.OOM {
			t.Errorf("exit = %+v, want all of it to be killed", exit)
		}
	}
}

// TestExecMeetsTheEnd: an exec that a container's end gets in the way of says so, also
// before the keeper has heard of the end, and not which part of it could not be done.
func TestExecMeetsTheEnd(t *testing.T) {
	w := newFaultyWorld(t)
	for range 5 {
		c := w.config("sleep", "1000")
		w.start(c)
		reached := w.set("exec-loaded", "init")
		exit, err := w.rt.Exec(w.ctx(), c.ID(), runtime.Process{Args: []string{"true"}})
		if !errors.Is(err, runtime.ErrNotRunning) && exit.Signal != "SIGKILL" || !reached() {
			t.Errorf("exec: %+v, %v", exit, err)
		}
		w.finish(c)
	}
}

// TestKeeperThatDoesNotAnswerYet: who finds a keeper that holds the lock and still adopts
// what it has found waits for it.
func TestKeeperThatDoesNotAnswerYet(t *testing.T) {
	w := newWorld(t)
	pid := w.rt.KeeperPid()
	if err := w.rt.StopKeeper(w.ctx()); err != nil {
		t.Fatal(err)
	}
	w.gone(pid)
	lock, err := os.OpenFile(filepath.Join(w.run, "keeper.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	opened := make(chan *runtime.Runtime, 1)
	go func() { opened <- w.open(builtKeeper) }()
	w.await("a second keeper to be refused", func() bool { return strings.Contains(w.keeperLog(), "another keeper holds the lock") })
	lock.Close() // the first one died over it
	w.rt = <-opened
}

// TestInputClosedForNextKeeper: a keeper that is killed while it ends a container's input has promised that end.
func TestInputClosedForNextKeeper(t *testing.T) {
	w := newFaultyWorld(t)
	for name, init := range map[string]bool{"with init": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			w := w.on(t)
			c := w.interactive(false, "cat")
			c.Init = init
			w.start(c)
			caller := w.open("/no/such/keeper")
			reached := w.set("input-kept", "hold")
			var over sync.WaitGroup
			over.Go(func() { caller.CloseStdin(w.ctx(), c.ID()) })
			w.await("the point", reached)
			caller.Close()
			over.Wait()
			killKeeper(w)
			if exit := w.finish(c); exit.Code != 0 || exit.Signal != "" || exit.Unknown {
				t.Errorf("exit = %+v", exit)
			}
		})
	}
}
