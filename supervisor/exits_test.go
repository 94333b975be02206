package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/exits"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

func (d *daemon) exitsOf(name string) []api.ExitRecord {
	d.t.Helper()
	synctest.Wait() // nothing waits for the disk
	list, err := d.Exits(d.t.Context(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

// TestExitsAreKept: each end with all that is known of it, also in the next
// daemon and after the run is gone, until the unit is removed.
func TestExitsAreKept(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		end := runtime.Exit{Signal: "SIGKILL", Status: 9, OOM: true, Memory: &runtime.Memory{Peak: 32 << 20, Limit: 32 << 20},
			Pressure: &cgroup.Pressure{Memory: cgroup.Stall{Some10: 50}},
			LastOOM:  &runtime.OOM{Kills: 1, Victim: &runtime.Task{Pid: 42, Comm: "java", RSS: 31 << 20}, Tasks: []runtime.Task{{Pid: 42, Comm: "java", RSS: 31 << 20}}}}
		w.Runtime.Script = func(_ runtime.Config, n int) supervisortest.Script {
			if n == 1 {
				return supervisortest.Script{RunsFor: time.Second, Exit: end, Output: []string{"last words"}}
			}
			return supervisortest.Script{}
		}
		d := begin(t, o)
		d.apply(web)
		time.Sleep(5 * time.Second)
		d.want("web", "running")
		for again := range 2 {
			list := d.exitsOf("web")
			if len(list) != 1 {
				t.Fatalf("%d: kept %+v", again, list)
			}
			r := list[0]
			if r.Exit == nil || r.Exit.Status != 9 || !r.Exit.OOM || r.Memory.Peak != 32<<20 || r.Pressure.Memory.Some10 != 50 ||
				r.LastOOM.Victim.Comm != "java" || len(r.LastOOM.Tasks) != 1 || r.Instance != "web.1" || r.StartedAt.IsZero() || r.Stopped {
				t.Errorf("%d: kept %+v", again, r)
			}
			if len(r.Output) != 1 || r.Output[0].Text != "last words" || r.Output[0].Stream != "stdout" {
				t.Errorf("%d: output %+v", again, r.Output)
			}
			if again == 0 {
				if err := d.end(); err != nil {
					t.Fatal(err)
				}
				d = begin(t, o)
				defer d.end()
			}
		}
		if got := d.exitsOf("web.1"); len(got) != 1 {
			t.Errorf("of the instance: %+v", got)
		}
		if _, err := d.Exits(t.Context(), "nothing"); err == nil {
			t.Error("exits of a unit that is not there")
		}
		d.empty(w)
		if left, _ := filepath.Glob(filepath.Join(o.Root, "exits", "*")); len(left) > 0 {
			t.Errorf("left with the unit gone: %v", left)
		}
	})
}

// writeLog writes a line as the keeper does.
func writeLog(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "%s stdout F %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z"), text)
}

// TestFailedStartIsKept: with its step, as an end is.
func TestFailedStartIsKept(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(_ runtime.Config, n int) supervisortest.Script {
			if n == 1 {
				return supervisortest.Script{StartErr: &runtime.StepError{Step: runtime.StepRootfs, Err: os.ErrNotExist}}
			}
			return supervisortest.Script{}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		time.Sleep(5 * time.Second)
		d.want("web", "running")
		list := d.exitsOf("web")
		if len(list) != 1 || list[0].Exit != nil || list[0].Step == "" || !strings.Contains(list[0].Error, "rootfs: ") {
			t.Errorf("kept %+v", list)
		}
	})
}

// TestOOMOfAChildIsAnEvent: it says who was killed, and the run goes on.
func TestOOMOfAChildIsAnEvent(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		w.Runtime.OOM("web.1", &runtime.OOM{Kills: 1, Victim: &runtime.Task{Pid: 42, Comm: "worker", RSS: 31 << 20},
			Memory: &runtime.Memory{Limit: 32 << 20}})
		d.want("web", "running")
		var found *api.Event
		for e, err := range d.Events(t.Context(), 0, false) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Type == event.OOM {
				found = &e
			}
		}
		if found == nil || !strings.Contains(found.Message, "worker (pid 42, 31 MiB)") || !strings.Contains(found.Message, "limit 32 MiB") || found.Fields["oom"] == nil {
			t.Errorf("event = %+v", found)
		}
		if n := w.Runtime.Starts("web.1"); n != 1 {
			t.Errorf("%d starts", n)
		}
	})
}

// TestOutputIsBounded: the last lines are kept, and of a huge one the end.
func TestOutputIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines int
		width int
		want  int
		cut   bool
	}{
		{"few", 3, 10, 3, false},
		{"many", 3 * exits.MaxLines, 10, exits.MaxLines, false},
		{"wide", 100, 2000, exits.MaxOutput / 2000, true},
		{"one huge", 1, 2 * exits.MaxOutput, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.log")
			for i := range tt.lines {
				writeLog(t, path, fmt.Sprintf("%0*d", tt.width, i))
			}
			lines, cut := lastOutput(t.Context(), path, "", time.Time{})
			size := 0
			for _, l := range lines {
				size += len(l.Text)
			}
			if len(lines) != tt.want || cut != tt.cut || size > exits.MaxOutput {
				t.Errorf("%d lines, %d bytes, cut %v", len(lines), size, cut)
			}
			if last := lines[len(lines)-1].Text; !strings.HasSuffix(last, fmt.Sprintf("%04d", tt.lines-1)) {
				t.Errorf("the last line is %q", last[max(0, len(last)-20):])
			}
		})
	}
}

// TestExitOfTheRemoved: a record that is written when its unit has gone goes too; a daemon that has just begun, and shows no unit yet,
// takes none for gone.
func TestExitOfTheRemoved(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(runtime.Config, int) supervisortest.Script {
			return supervisortest.Script{RunsFor: time.Second, Exit: runtime.Exit{Code: 3}}
		}
		d := begin(t, o)
		d.apply("name: web\nimage: a\nrestart: \"no\"\n")
		time.Sleep(10 * time.Second)
		d.end()
		for range 20 { // each writes the record of the last end once more
			d = begin(t, o)
			if list := d.exitsOf("web"); len(list) != 1 {
				t.Fatalf("%+v", list)
			}
			d.end()
		}
		d = begin(t, o)
		defer d.end()
		late := d.exitsOf("web")[0]
		if _, err := d.Remove(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := d.exits.Put(&late); err != nil {
			t.Fatal(err)
		}
		d.post(exitKept{"web"})
		time.Sleep(time.Second)
		if list, err := d.exits.List("web", ""); err != nil || len(list) != 0 {
			t.Errorf("%+v %v", list, err)
		}
	})
}

// TestExitWhileForgotten: a record that is written between the deletion of a removed unit's exits and the end of the unit goes too.
func TestExitWhileForgotten(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply("name: web\nimage: a\n")
		time.Sleep(time.Second)
		// It has deleted what there was, and was not heard of yet.
		d.post(glance(func(l *loop) { l.begin("web", "web", string(plan.Forget)) }))
		if err := d.exits.Put(&api.ExitRecord{Unit: "web", Instance: "web.1", Run: "web.1-aaaa", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		d.post(exitKept{"web"})
		time.Sleep(time.Second)
		if list, err := d.exits.List("web", ""); err != nil || len(list) != 0 {
			t.Errorf("%+v %v", list, err)
		}
	})
}
