package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// killKeeper ends the keeper as an out-of-memory kill would, and waits until
// the runtime has brought up another one.
func killKeeper(w *world) {
	w.tb.Helper()
	old := w.rt.KeeperPid()
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		w.tb.Fatal(err)
	}
	w.await("a new keeper", func() bool { pid := w.rt.KeeperPid(); return pid != 0 && pid != old })
}

// await polls for what the kernel or another process does in its own time.
func (w *world) await(what string, ok func() bool) {
	w.tb.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	w.tb.Fatalf("%s: not within %v", what, patience)
}

func TestKeeperKilled(t *testing.T) {
	w := newWorld(t)
	c := counter(w)
	st := w.start(c)
	events := w.rt.Events(w.ctx()) // ends, and with it a test that misses one
	if e := <-events; e.Type != runtime.EventGap {
		t.Errorf("first event = %+v, want a gap", e)
	}
	for range 5 {
		w.await("output", func() bool { fi, err := os.Stat(c.Log.Path); return err == nil && fi.Size() > 10000 })
		killKeeper(w)
		now, err := w.rt.Get(t.Context(), c.ID())
		if err != nil || now.Pid != st.Pid || now.State != runtime.Running {
			t.Fatalf("after the kill: %+v, %v; pid was %d", now, err, st.Pid)
		}
		if e := <-events; e.Type != runtime.EventGap {
			t.Errorf("event = %+v, want a gap", e)
		}
	}
	w.goesOn(t, c)
	if err := w.rt.Signal(t.Context(), c.ID(), "KILL"); err != nil {
		t.Fatal(err)
	}
	exit, err := w.rt.Wait(w.ctx(), c.ID())
	if err != nil || exit.Signal != "SIGKILL" || exit.Unknown {
		t.Errorf("exit = %+v, %v, want SIGKILL", exit, err)
	}
	if e := <-events; e.Type != runtime.EventExit || e.ID != c.ID() || !e.Status.Drained {
		t.Errorf("event = %+v, want the exit", e)
	}
	checkSequence(t, c)
}

// TestEndWhileAway: a container that ends while no keeper lives has its true
// code and all of its output.
func TestEndWhileAway(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		want         runtime.Exit
	}{
		{"code", "read x; echo last words; exit 7", runtime.Exit{Code: 7}},
		{"signal", "read x; echo last words; kill -TERM $$; sleep 5", runtime.Exit{Signal: "SIGTERM"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			hold := filepath.Join(w.run, "hold")
			if err := unix.Mkfifo(hold, 0o600); err != nil {
				t.Fatal(err)
			}
			c := w.config("sh", "-c", "{ "+tt.script+"; } < /hold")
			c.Spec.Mounts = append(c.Spec.Mounts, bind(hold, "/hold"))
			st := w.start(c)
			keeper := w.rt.KeeperPid()
			w.rt.Close()
			unix.Kill(keeper, unix.SIGKILL)
			w.gone(keeper)
			release(t, hold)
			// The init waits for somebody to read the last words.
			w.await("the program's end", func() bool {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", st.Pid))
				return err == nil && len(b) == 0
			})
			w.rt = w.open(builtKeeper)
			exit := w.finish(c)
			if exit.Code != tt.want.Code || exit.Signal != tt.want.Signal || exit.Unknown {
				t.Errorf("exit = %+v, want %+v", exit, tt.want)
			}
			if got := w.text(c); got != "last words\n" {
				t.Errorf("output = %q", got)
			}
		})
	}
}

// release lets a container go on that reads from the pipe at path.
func release(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(f, "go")
	f.Close()
}

// TestEndWithoutInit: without an init there is no record. What cannot be known
// is unknown, never a code.
func TestEndWithoutInit(t *testing.T) {
	w := newWorld(t)
	hold := filepath.Join(w.run, "hold")
	if err := unix.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	c := w.config("sh", "-c", "read x < /hold; exit 7")
	c.Init = false
	c.Spec.Mounts = append(c.Spec.Mounts, bind(hold, "/hold"))
	st := w.start(c)
	keeper := w.rt.KeeperPid()
	w.rt.Close()
	unix.Kill(keeper, unix.SIGKILL)
	w.gone(keeper)
	release(t, hold)
	w.gone(st.Pid)
	w.rt = w.open(builtKeeper)
	if exit := w.finish(c); !exit.Unknown && exit.Code != 7 {
		t.Errorf("exit = %+v, want unknown, or 7 from a kernel that remembers", exit)
	}
}

func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	c := counter(w)
	st := w.start(c)
	keeper := w.rt.KeeperPid()
	other := filepath.Join(w.root, "other-keeper")
	b, err := os.ReadFile(builtKeeper)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, append(b, "another build"...), 0o755); err != nil {
		t.Fatal(err)
	}
	if outdated, err := w.rt.Outdated(t.Context()); outdated || err != nil {
		t.Errorf("outdated before there is another build: %v, %v", outdated, err)
	}
	if err := w.rt.Upgrade(t.Context(), other); err != nil {
		t.Fatalf("upgrade: %v\n%s", err, w.keeperLog())
	}
	if pid := w.rt.KeeperPid(); pid != keeper {
		t.Errorf("keeper's pid = %d, was %d", pid, keeper)
	}
	if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", keeper)); exe != other {
		t.Errorf("keeper runs %s, want %s", exe, other)
	}
	if outdated, err := w.rt.Outdated(t.Context()); !outdated || err != nil { // it is not the file that we name
		t.Errorf("outdated as another build: %v, %v", outdated, err)
	}
	now, err := w.rt.Get(t.Context(), c.ID())
	if err != nil || now.Pid != st.Pid || now.State != runtime.Running {
		t.Fatalf("after the upgrade: %+v, %v", now, err)
	}
	w.goesOn(t, c)
	// A new container, and the end of the old one, with the new binary.
	d := w.config("sh", "-c", "exit 3")
	w.start(d)
	if exit := w.finish(d); exit.Code != 3 {
		t.Errorf("exit = %+v, want 3", exit)
	}
	if err := w.rt.Kill(t.Context(), c.ID()); err != nil {
		t.Fatal(err)
	}
	if exit := w.finish(c); exit.Signal != "SIGKILL" {
		t.Errorf("exit = %+v, want SIGKILL", exit)
	}
	checkSequence(t, c)
}

func TestUpgradeRefused(t *testing.T) {
	w := newWorld(t)
	c := w.config("sleep", "1000")
	st := w.start(c)
	keeper := w.rt.KeeperPid()
	for _, binary := range []string{"/bin/true", "/bin/false", "/no/such/keeper", filepath.Join(w.lower, "bin/plain")} {
		if err := w.rt.Upgrade(t.Context(), binary); err == nil {
			t.Errorf("upgrade to %s: no error", binary)
		} else {
			t.Log(err)
		}
	}
	now, err := w.rt.Get(t.Context(), c.ID())
	if err != nil || now.Pid != st.Pid || w.rt.KeeperPid() != keeper {
		t.Errorf("after refused upgrades: %+v, %v, keeper %d", now, err, w.rt.KeeperPid())
	}
}

// TestHalfDoneStart: a keeper that dies in the middle of a start leaves it to
// the next one to undo.
func TestHalfDoneStart(t *testing.T) {
	w := newWorld(t)
	for i := range 8 {
		c := w.config("sleep", "1000")
		done := make(chan error, 1)
		go func() {
			_, err := w.rt.Start(w.ctx(), c)
			done <- err
		}()
		time.Sleep(time.Duration(4*i+1) * time.Millisecond) // a different place each time
		killKeeper(w)
		err := <-done
		if err != nil && !errors.Is(err, runtime.ErrKeeper) {
			t.Errorf("start: %v, want ErrKeeper", err)
		}
		st, gerr := w.rt.Get(t.Context(), c.ID())
		switch {
		case gerr == nil && st.State == runtime.Running:
			w.rt.Kill(t.Context(), c.ID())
			w.finish(c)
		case !errors.Is(gerr, runtime.ErrNotFound):
			t.Errorf("after the kill: %+v, %v", st, gerr)
		}
		w.checkContainersLeft()
	}
}

func TestOutOfMemory(t *testing.T) {
	w := newWorld(t)
	for _, init := range []bool{true, false} {
		c := w.config("tail", "/dev/zero")
		c.Init = init
		limit := int64(32 << 20)
		c.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
		events := w.rt.Events(t.Context())
		<-events
		w.start(c)
		exit := w.finish(c)
		if !exit.OOM || exit.Signal != "SIGKILL" || exit.Memory == nil || exit.Memory.Limit != limit {
			t.Errorf("init %v: exit = %+v, want an OOM kill", init, exit)
		}
	}
	// Killed by hand under a limit is no lack of memory.
	c := w.config("sleep", "1000")
	limit := int64(32 << 20)
	c.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	w.start(c)
	w.rt.Signal(t.Context(), c.ID(), "9")
	if exit := w.finish(c); exit.OOM || exit.Signal != "SIGKILL" {
		t.Errorf("exit = %+v, want a plain SIGKILL", exit)
	}
}

// TestOOMOfAChild: the container lives on and an event says what happened.
func TestOOMOfAChild(t *testing.T) {
	w := newWorld(t)
	c := w.config("sh", "-c", "tail /dev/zero; sleep 1000")
	limit := int64(32 << 20)
	c.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	c.Spec.Linux.Resources.Unified = map[string]string{"memory.oom.group": "0"}
	if groups, _ := filepath.Glob("/sys/fs/cgroup/memory"); len(groups) > 0 {
		c.Spec.Linux.Resources.Unified = nil
	}
	events := w.rt.Events(w.ctx())
	<-events
	w.start(c)
	e := <-events
	if e.Type != runtime.EventOOM || e.ID != c.ID() || e.Status.State != runtime.Running {
		t.Errorf("event = %+v, want an OOM kill in a living container", e)
	}
}

// TestManyAtOnce: starts do not wait for each other, nor mix up.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	const n = 12
	configs := make([]runtime.Config, n)
	for i := range configs {
		configs[i] = w.config("sh", "-c", fmt.Sprintf("echo I am %d; exit %d", i, i))
		configs[i].Run = "one.1-run" // containers of one run share its group and folder
		configs[i].Container = fmt.Sprintf("c%d", i)
	}
	errs := make(chan error, n)
	for _, c := range configs {
		go func() {
			_, err := w.rt.Start(w.ctx(), c)
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for i, c := range configs {
		if exit := w.finish(c); exit.Code != i || exit.Unknown {
			t.Errorf("container %d: %+v", i, exit)
		}
		if got, want := w.text(c), fmt.Sprintf("I am %d\n", i); got != want {
			t.Errorf("container %d wrote %q", i, got)
		}
	}
	w.checkContainersLeft()
}

// TestStartCanceled: a start whose caller gives up leaves nothing.
func TestStartCanceled(t *testing.T) {
	w := newWorld(t)
	for i := range 6 {
		c := w.config("sleep", "1000")
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(5*i+1)*time.Millisecond)
		_, err := w.rt.Start(ctx, c)
		cancel()
		if err == nil { // it was faster
			w.rt.Kill(t.Context(), c.ID())
			w.finish(c)
		}
		w.checkContainersLeft()
	}
}

// TestReadOnlyRoot: nothing of ours needs a place to write in the image.
func TestReadOnlyRoot(t *testing.T) {
	w := newWorld(t)
	c := w.config("sh", "-c", "touch /x 2>/dev/null || echo read-only")
	c.Spec.Root.Readonly = true
	c.Rootfs = []specs.Mount{{Destination: "/", Type: "bind", Source: w.lower, Options: []string{"rbind", "ro"}}}
	w.start(c)
	w.finish(c)
	if got := w.text(c); !strings.HasSuffix(got, "read-only\n") {
		t.Errorf("output = %q", got)
	}
}

// TestLastWordsWithoutInit: where no init waits until they are read, those who hold the
// keeper's heirlooms hold the pipe.
func TestLastWordsWithoutInit(t *testing.T) {
	w := newWorld(t)
	hold := filepath.Join(w.run, "hold")
	if err := unix.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	c := w.config("sh", "-c", "read x < /hold; echo last words; exit 7")
	c.Init = false
	c.Spec.Mounts = append(c.Spec.Mounts, bind(hold, "/hold"))
	st := w.start(c)
	w.await("the runtime to hold its output", func() bool {
		return holds(filepath.Join(w.run, "containers", c.ID()+".stdout"))
	})
	keeper := w.rt.KeeperPid()
	if err := unix.Kill(keeper, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	release(t, hold)
	w.await("the program's end", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", st.Pid))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
	unix.Kill(keeper, unix.SIGKILL)
	w.await("the exit", func() bool {
		st, err := w.rt.Get(t.Context(), c.ID())
		return err == nil && st.Drained
	})
	if got := w.text(c); got != "last words\n" {
		t.Errorf("output %q", got)
	}
	if exit := w.finish(c); exit.Code != 7 && !exit.Unknown {
		t.Errorf("exit = %+v", exit)
	}
}

// holds says whether this process has the file at path open.
func holds(path string) bool {
	fds, _ := filepath.Glob("/proc/self/fd/*")
	return slices.ContainsFunc(fds, func(fd string) bool {
		to, err := os.Readlink(fd)
		return err == nil && to == path
	})
}

// TestSilentUntilAdopted: the first words of a container belong to its run, also if a keeper copies them that has not started it.
func TestSilentUntilAdopted(t *testing.T) {
	w := newWorld(t)
	before := w.config("echo", "of the run before")
	w.start(before)
	w.finish(before)
	hold := filepath.Join(w.run, "hold")
	if err := unix.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	c := w.config("sh", "-c", "read x < /hold; echo first words; exec sleep 1000")
	c.Spec.Mounts = append(c.Spec.Mounts, bind(hold, "/hold"))
	c.Log.Path = before.Log.Path
	w.start(c)
	killKeeper(w)
	release(t, hold)
	w.await("its words", func() bool {
		b, err := os.ReadFile(c.Log.Path)
		return err == nil && strings.Contains(string(b), "first words")
	})
	for of, want := range map[string]string{before.Run: "of the run before", c.Run: "first words"} {
		var got []string
		for l, err := range runtime.ReadLog(t.Context(), c.Log.Path, runtime.LogOptions{Run: of}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(l.Text))
		}
		if strings.Join(got, "/") != want {
			t.Errorf("output of %s: %q, want %q", of, got, want)
		}
	}
}
