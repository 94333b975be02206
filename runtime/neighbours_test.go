package runtime_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
)

// serves goes through all that a neighbour of a container that misbehaves may want. That it
// comes to an end is all that is asked for.
func (w *world) serves() {
	w.tb.Helper()
	c := w.config("sh", "-c", "echo I am here; while true; do sleep 0.05; done")
	w.start(c)
	w.await("a neighbour's output", func() bool { return w.text(c) == "I am here\n" })
	for range 3 {
		if exit, err := w.rt.Exec(w.ctx(), c.ID(), runtime.Process{Args: []string{"sh", "-c", "exit 5"}}); err != nil || exit.Code != 5 {
			w.tb.Errorf("a neighbour's exec: %+v, %v", exit, err)
		}
		if list, err := w.rt.List(w.ctx()); err != nil || len(list) < 2 {
			w.tb.Errorf("list: %d, %v", len(list), err)
		}
	}
	if err := w.rt.Kill(w.ctx(), c.ID()); err != nil {
		w.tb.Error(err)
	}
	w.finish(c)
}

// bomb forks without end, in each of its processes.
const bomb = `
#include <unistd.h>
int main(void)
{
	for (;;)
		if (fork() < 0)
			usleep(1000);
}
`

// compile makes a program of the containers' images.
func (w *world) compile(name, text string) {
	w.tb.Helper()
	if err := os.MkdirAll(w.root, 0o711); err != nil {
		w.tb.Fatal(err)
	}
	source := filepath.Join(w.root, name+".c")
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		w.tb.Fatal(err)
	}
	if out, err := exec.Command("cc", "-static", "-o", filepath.Join(w.lower, "bin", name), source).CombinedOutput(); err != nil {
		w.tb.Skipf("no static C program: %v: %s", err, out)
	}
}

// TestForkBomb: one that forks without end is held by its limit of processes, and ends when it is killed.
func TestForkBomb(t *testing.T) {
	w := newWorld(t)
	w.compile("bomb", bomb)
	c := w.config("bomb")
	limit := int64(64)
	c.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	w.start(c)
	w.await("the limit", func() bool { s, err := w.rt.Stats(w.ctx(), c.ID()); return err == nil && s.Pids >= limit-8 })
	w.serves()
	if err := w.rt.Kill(w.ctx(), c.ID()); err != nil {
		t.Error(err)
	}
	if exit := w.finish(c); exit.Signal != "SIGKILL" {
		t.Errorf("exit = %+v", exit)
	}
}

// TestFlood: one that writes as fast as it can.
func TestFlood(t *testing.T) {
	w := newWorld(t)
	c := w.config("sh", "-c", "while true; do cat /bin/busybox; done & while true; do cat /bin/busybox >&2; done")
	c.Log.MaxSize, c.Log.MaxFile = 1<<20, 2
	w.start(c)
	w.await("output", func() bool { left, _ := filepath.Glob(c.Log.Path + "*"); return len(left) > 1 })
	w.serves()
	killKeeper(w)
	w.serves()
	if err := w.rt.Kill(w.ctx(), c.ID()); err != nil {
		t.Error(err)
	}
	w.finish(c)
}

// vforked waits in D state for a child that never execs.
const vforked = `
#include <unistd.h>
int main(void)
{
	if (vfork() == 0)
		for (;;)
			pause();
	return 0;
}
`

// TestUninterruptible: one whose main process sits in D state. It cannot be
// asked to stop, but killed.
func TestUninterruptible(t *testing.T) {
	w := newWorld(t)
	w.compile("vforked", vforked)
	c := w.config("vforked")
	st := w.start(c)
	w.await("D state", func() bool {
		kids, _ := os.ReadFile("/proc/" + strconv.Itoa(st.Pid) + "/task/" + strconv.Itoa(st.Pid) + "/children")
		stat, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(kids)) + "/stat")
		return strings.Contains(string(stat), ") D ")
	})
	w.serves()
	killKeeper(w)
	w.serves()
	if exit, err := w.rt.Stop(w.ctx(), c.ID(), 0); err != nil || exit.Signal == "" {
		t.Errorf("stop: %+v, %v", exit, err)
	}
	w.finish(c)
}
