package runtime_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// TestStoppedExec: a container's root may stop a process that is being put into
// its container. That holds up this exec alone, and ends with the container.
func TestStoppedExec(t *testing.T) {
	w := newWorld(t)
	c := w.config("sh", "-c", `while :; do for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = 1 ] || [ $p = $$ ] || kill -STOP $p; done 2>/dev/null; done`)
	w.start(c)
	ended := make(chan error, 1)
	go func() {
		exit, err := w.rt.Exec(w.ctx(), c.ID(), runtime.Process{Args: []string{"sleep", "1000"}})
		if exit.Signal == "SIGKILL" { // it was stopped as late as in its program
			err = errors.New(exit.Signal)
		}
		ended <- err
	}()
	w.await("the exec to come as far as the container", func() bool { return hasStoppedChild(w.rt.KeeperPid()) })
	other := w.config("true")
	w.start(other)
	w.finish(other)
	if err := w.rt.StopKeeper(w.ctx()); err == nil {
		t.Fatal("the keeper ended beside a running container")
	}
	third := w.config("true")
	w.start(third)
	w.finish(third)
	if err := w.rt.Kill(t.Context(), c.ID()); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the exec ended well")
		}
	case <-time.After(patience):
		t.Error("the exec outlives its container")
	}
	w.finish(c)
}

// hasStoppedChild tells whether a child of process pid is stopped.
func hasStoppedChild(pid int) bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, _ := os.ReadFile(name) // it has ended
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[0] == "T" && f[1] == strconv.Itoa(pid) {
			return true
		}
	}
	return false
}

// TestEndDuringExec: a container that ends while a process is being put into it
// does end, whatever stage the process is in.
func TestEndDuringExec(t *testing.T) {
	w := newWorld(t)
	for i := range 15 {
		c := w.config("sleep", "1000")
		w.start(c)
		var execs sync.WaitGroup
		for range 3 {
			execs.Go(func() { w.rt.Exec(w.ctx(), c.ID(), runtime.Process{Args: []string{"true"}}) })
		}
		time.Sleep(time.Duration(i) * time.Millisecond) // another stage each time
		if err := w.rt.Kill(t.Context(), c.ID()); err != nil {
			t.Fatal(err)
		}
		w.finish(c)
		execs.Wait()
	}
}

// TestEndlessLine: a line without an end takes no more of the keeper's memory than any other.
func TestEndlessLine(t *testing.T) {
	w := newWorld(t)
	c := w.config("dd", "if=/dev/zero", "bs=1048576", "count=256")
	c.Log.MaxSize, c.Log.MaxFile = 1<<20, 2
	w.start(c)
	w.finish(c)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.rt.KeeperPid()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	peak, _ := strconv.Atoi(strings.Fields(rest)[0])
	if peak > 60<<10 {
		t.Errorf("the keeper's memory was up to %d KiB", peak)
	}
}

// TestInherited: nothing of the keeper's own goes on to a program: no ignored
// or blocked signal, no descriptor, no variable, no protection from the OOM killer.
func TestInherited(t *testing.T) {
	w := newWorld(t)
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	const look = `grep -E "^Sig(Blk|Ign)" /proc/self/status; ls /proc/self/fd; env | grep -vE "^(PWD|SHLVL|_|OLDPWD)="; cat /proc/self/oom_score_adj`
	for _, init := range []bool{true, false} {
		c := w.config("sh", "-c", look)
		c.Init = init
		w.start(c)
		w.finish(c)
		score := strings.TrimSpace(string(own)) // what root without CAP_SYS_RESOURCE cannot go below
		if n, _ := strconv.Atoi(score); n < 0 || canLower() {
			score = "0"
		}
		want := "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0\n1\n2\n3\nPATH=/bin\nHOME=/root\n" + score + "\n"
		if got := w.text(c); sorted(got) != sorted(want) {
			t.Errorf("init %v: %q, want %q", init, got, want)
		}
	}
}

func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// canLower tells whether we have CAP_SYS_RESOURCE.
func canLower() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// TestRootByAnotherName: capabilities go by the number.
func TestRootByAnotherName(t *testing.T) {
	w := newWorld(t)
	c := w.config("grep", "CapEff", "/proc/self/status")
	passwd := filepath.Join(w.lower, "etc/passwd")
	if err := os.WriteFile(passwd, []byte("toor:x:0:0:root:/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.User = "toor"
	c.Spec.Process.Capabilities.Effective, c.Spec.Process.Capabilities.Permitted = nil, nil
	w.start(c)
	w.finish(c)
	if got := w.text(c); got != "CapEff:\t00000000000000e1\n" {
		t.Errorf("%q", got)
	}
}
