package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// TestSoakShort: a soak of half a minute finds nothing, and leaves nothing.
func TestSoakShort(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if testing.Short() {
		t.Skip("a minute of noise: not with -short")
	}
	bin := os.Getenv("WHERRY_BIN")
	if bin == "" {
		bin, _ = filepath.Abs("../../bin")
	}
	if _, err := os.Stat(filepath.Join(bin, "wherry-keeper")); err != nil {
		t.Skip("the programs are not built: scripts/build")
	}
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("busybox is not installed: scripts/setup test")
	}
	if err := run(t.Context(), options{duration: 25 * time.Second, warmup: 8 * time.Second, units: 13, bin: bin, say: t.Logf}); err != nil {
		t.Error(err)
	}
}

// TestCompare: what has grown more than it may is a leak, and so is what was not there before.
func TestCompare(t *testing.T) {
	sample := func(n int, memory float64) *measures {
		m := &measures{lists: map[string][]string{"host mounts": []string{"a", "b", "c"}[:n]}}
		m.add("host", "mounts", n)
		m.allow("daemon", "PSS", "KiB", memory, 0.25, 100)
		return m
	}
	for _, c := range []struct {
		name          string
		before, after *measures
		want          int
		says          string
	}{
		{"the same", sample(2, 1000), sample(2, 1000), 0, ""},
		{"less", sample(2, 1000), sample(1, 10), 0, ""},
		{"a mount more", sample(2, 1000), sample(3, 1000), 1, "+ c"},
		{"memory within its room", sample(2, 1000), sample(2, 1250), 0, ""},
		{"memory without", sample(2, 1000), sample(2, 1251), 1, "LEAK"},
		{"both", sample(0, 0), sample(1, 101), 2, "LEAK"},
	} {
		var out bytes.Buffer
		if got := len(compare(&out, c.before, c.after)); got != c.want || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %d leaks, want %d\n%s", c.name, got, c.want, &out)
		}
	}
	before, after := sample(1, 1), sample(1, 1)
	after.add("run folder", "new", 3)
	var out bytes.Buffer
	if len(compare(&out, before, after)) != 1 {
		t.Errorf("what was not there before:\n%s", &out)
	}
}

// TestGaps: a number that is missing fails, one that repeats does unless a keeper was killed.
func TestGaps(t *testing.T) {
	lines := func(numbers ...string) (l []api.LogLine) {
		for _, n := range numbers {
			l = append(l, api.LogLine{Run: "count-1.1-abcd", Time: time.Now(), Text: []byte("n " + n + "\n")})
		}
		return l
	}
	of := func(container string, l []api.LogLine) []api.LogLine {
		for i := range l {
			l[i].Container = container
		}
		return l
	}
	for _, c := range []struct {
		name   string
		lines  []api.LogLine
		killed bool
		bad    int
	}{
		{"a sidecar from the beginning", of("side", lines("1", "2", "1")), false, 0},
		{"a container from the beginning", of("main", lines("1", "2", "1")), false, 1},
		{"a container from the beginning after a kill", of("main", lines("1", "2", "1", "2", "1")), true, 0},
		{"a run from the beginning twice", lines("1", "2", "1", "2", "1"), true, 1},
		{"in order", lines("1", "2", "3"), false, 0},
		{"from the middle", lines("7", "8"), false, 0},
		{"a gap", lines("1", "2", "4"), false, 1},
		{"again", lines("1", "2", "2", "3"), false, 1},
		{"again after a kill", lines("1", "2", "1", "2", "3"), true, 0},
		{"again twice after one kill", lines("1", "2", "1", "2", "1", "2"), true, 1},
	} {
		s := &soak{o: options{say: func(string, ...any) {}}, h: &host{}}
		g := newGaps(newWatch(s), &cargo{kind: kinds[0]}, true)
		if c.killed {
			s.h.keepers = 1
			s.h.troubles = []*trouble{{what: "kill -9 keeper"}}
		}
		for _, l := range c.lines {
			g.note(l)
		}
		if len(s.failures) != c.bad {
			t.Errorf("%s: %q", c.name, s.failures)
		}
	}
}

// TestToldOfACut: a program that never began is a cut, which something that was killed excuses; one that was cut off
// by anything else is none.
func TestToldOfACut(t *testing.T) {
	for _, c := range []struct {
		exit api.Exit
		out  string
		cut  bool
	}{
		{api.Exit{Signal: "SIGPIPE"}, "", true},
		{api.Exit{Signal: "SIGPIPE"}, "word\n", false},
		{api.Exit{Signal: "SIGSEGV"}, "", false},
		{api.Exit{Code: 1}, "", false},
	} {
		if err := told(&cargo{}, c.exit, 7, c.out, "word\nword\n"); err == nil || cutOff(err) != c.cut {
			t.Errorf("%+v: %v", c.exit, err)
		}
	}
}

// TestJudgeOfEnds: a record must say what the program said.
func TestJudgeOfEnds(t *testing.T) {
	rec := func(x *api.Exit, stopped bool, last string) api.ExitRecord {
		now := time.Now()
		return api.ExitRecord{StartedAt: now.Add(-time.Second), At: now, Exit: x, Stopped: stopped, Output: []api.OutputLine{{Text: "n 1"}, {Text: last}}}
	}
	for _, c := range []struct {
		name string
		rec  api.ExitRecord
		how  string
		bad  bool
	}{
		{"its code", rec(&api.Exit{Code: 42}, false, "bye 42"), "code", false},
		{"another code", rec(&api.Exit{Code: 0}, false, "bye 42"), "wrong", true},
		{"its signal", rec(&api.Exit{Signal: "SIGSEGV"}, false, "bye SIGSEGV"), "signal", false},
		{"a code for a signal", rec(&api.Exit{Code: 139}, false, "bye SIGSEGV"), "wrong", true},
		{"out of memory", rec(&api.Exit{Signal: "SIGKILL", OOM: true}, false, "bye OOM"), "oom", false},
		{"out of memory unseen", rec(&api.Exit{Signal: "SIGKILL"}, false, "bye OOM"), "wrong", true},
		{"stopped", rec(&api.Exit{Signal: "SIGTERM"}, true, "n 2"), "stopped", false},
		{"stopped with a code that nobody chose", rec(&api.Exit{}, true, "n 2"), "stopped", true},
		{"without a word", rec(&api.Exit{}, false, "n 2"), "without a word", true},
		{"unknown", rec(&api.Exit{Unknown: true}, true, "n 2"), "unknown", true},
		{"a start that failed", rec(nil, false, ""), "start failed", true},
	} {
		w := newWatch(&soak{h: &host{}})
		if how, err := w.judge(&cargo{kind: kinds[0]}, c.rec); how != c.how || (err != nil) != c.bad {
			t.Errorf("%s: %s, %v", c.name, how, err)
		}
	}
}
