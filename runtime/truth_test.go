package runtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// TestRawStatus: a signal and a code that looks like one are told apart.
func TestRawStatus(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		script string
		want   runtime.Exit
	}{
		{"exit 0", runtime.Exit{}},
		{"exit 137", runtime.Exit{Code: 137, Status: 137 << 8}},
		{"kill -9 $$", runtime.Exit{Signal: "SIGKILL", Status: 9}},
		{"kill -TERM $$; sleep 5", runtime.Exit{Signal: "SIGTERM", Status: 15}},
	} {
		for _, init := range []bool{true, false} {
			if !init && strings.HasPrefix(tt.script, "kill") {
				continue // PID 1 cannot kill itself
			}
			c := w.config("sh", "-c", tt.script)
			c.Init = init
			w.start(c)
			exit := w.finish(c)
			if exit.Code != tt.want.Code || exit.Signal != tt.want.Signal || exit.Status != tt.want.Status || exit.OOM || exit.Unknown {
				t.Errorf("%q, init %v: %+v", tt.script, init, exit)
			}
			if exit.Pressure == nil {
				t.Errorf("%q: no pressure", tt.script)
			}
		}
	}
	c := w.config("sleep", "1000")
	w.start(c)
	for script, want := range map[string]uint32{"exit 137": 137 << 8, "kill -9 $$": 9} {
		exit, err := w.rt.Exec(w.ctx(), c.ID(), runtime.Process{Args: []string{"sh", "-c", script}})
		if err != nil || exit.Status != want {
			t.Errorf("exec %q: %+v, %v", script, exit, err)
		}
	}
}

// TestOOMReport: a killed child is an event that says who it was, and the main
// process lives; what is known stays with the end.
func TestOOMReport(t *testing.T) {
	w := newWorld(t)
	c := w.config("sh", "-c", "tail /dev/zero; tail /dev/zero; while true; do sleep 0.1; done")
	limit := int64(32 << 20)
	c.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	c.OOM = "process"
	events := w.rt.Events(w.ctx())
	<-events
	w.start(c)
	var last *runtime.OOM
	for last == nil || last.Kills < 2 {
		e := <-events
		if e.Type != runtime.EventOOM || e.ID != c.ID() || e.OOM == nil {
			t.Fatalf("event = %+v, want a kill", e)
		}
		last = e.OOM
	}
	if last.Memory == nil || last.Memory.Limit != limit || last.Pressure == nil || len(last.Tasks) == 0 || len(last.Tasks) > runtime.MaxTasks {
		t.Errorf("report = %+v", last)
	}
	if last.Victim == nil {
		t.Log("no word of the victim: /dev/kmsg cannot be read")
	} else if last.Victim.Comm != "tail" || last.Victim.RSS < limit/2 || last.Tasks[0] != *last.Victim {
		t.Errorf("victim %+v of %+v, want tail, the largest", last.Victim, last.Tasks)
	}
	if st, err := w.rt.Get(t.Context(), c.ID()); err != nil || st.State != runtime.Running {
		t.Errorf("the main process: %+v, %v", st, err)
	}
	killKeeper(w) // what was reported is not forgotten, nor reported again
	if err := w.rt.Signal(t.Context(), c.ID(), "KILL"); err != nil {
		t.Fatal(err)
	}
	exit := w.finish(c)
	if exit.OOM || exit.Status != 9 {
		t.Errorf("exit = %+v: our own SIGKILL is no lack of memory", exit)
	}
	if exit.LastOOM == nil || exit.LastOOM.Kills != 2 {
		t.Errorf("last kill = %+v, want the second", exit.LastOOM)
	}
}

// otherKeeper is the keeper's binary as another file.
func otherKeeper(w *world) string {
	w.tb.Helper()
	b, err := os.ReadFile(builtKeeper)
	if err != nil {
		w.tb.Fatal(err)
	}
	other := filepath.Join(w.root, fmt.Sprintf("other-keeper-%d", time.Now().UnixNano()))
	if err := os.WriteFile(other, append(b, "another build"...), 0o755); err != nil {
		w.tb.Fatal(err)
	}
	return other
}

// TestExecSurvivesKeeper: whoever waits for a further process gets its end from
// the keeper that comes next.
func TestExecSurvivesKeeper(t *testing.T) {
	for _, way := range []string{"upgrade", "twice", "kill"} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t)
			c := w.config("sleep", "1000")
			w.start(c)
			r, stdin, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			out, stdout, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			type result struct {
				exit runtime.Exit
				err  error
			}
			done := make(chan result, 1)
			go func() {
				exit, err := w.rt.Exec(w.ctx(), c.ID(), runtime.Process{
					Args: []string{"sh", "-c", "echo up; read x; echo $x; exit 7"}, Stdin: r, Stdout: stdout})
				done <- result{exit, err}
			}()
			buf := make([]byte, 3)
			if _, err := out.Read(buf); err != nil {
				t.Fatal(err)
			}
			switch way {
			case "upgrade", "twice":
				n := map[string]int{"upgrade": 1, "twice": 2}[way]
				for range n {
					if err := w.rt.Upgrade(t.Context(), otherKeeper(w)); err != nil {
						t.Fatalf("upgrade: %v\n%s", err, w.keeperLog())
					}
				}
			case "kill":
				w.await("a record", func() bool { r, _ := filepath.Glob(w.run + "/containers/*.exec"); return len(r) == 1 })
				killKeeper(w)
			}
			stdin.WriteString("words\n")
			got := <-done
			want := runtime.Exit{Code: 7, Status: 7 << 8}
			if way == "kill" && got.exit.Unknown { // a kernel without PIDFD_GET_INFO
				want = runtime.Exit{Unknown: true}
			}
			if got.err != nil || got.exit.Code != want.Code || got.exit.Status != want.Status || got.exit.Unknown != want.Unknown {
				t.Errorf("%+v, %v, want %+v\n%s", got.exit, got.err, want, w.keeperLog())
			}
			if left, _ := filepath.Glob(w.run + "/containers/*.exec"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			for _, f := range []*os.File{r, stdin, out, stdout} {
				f.Close()
			}
		})
	}
}

// TestPidfdComesBack: of a container without init that ends while no keeper
// lives, the runtime's duplicate of the pidfd tells the code (Linux 6.15).
func TestPidfdComesBack(t *testing.T) {
	w := newWorld(t)
	hold := filepath.Join(w.run, "hold")
	if err := unix.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	c := w.config("sh", "-c", "read x < /hold; exit 7")
	c.Init = false
	c.Spec.Mounts = append(c.Spec.Mounts, bind(hold, "/hold"))
	st := w.start(c)
	w.await("the runtime to hold a pidfd", func() bool { return holdsPidfd(st.Pid) })
	// Stopped, so that the runtime does not bring up another one before the end.
	keeper := w.rt.KeeperPid()
	unix.Kill(keeper, unix.SIGSTOP)
	release(t, hold)
	w.await("the end", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", st.Pid))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
	unix.Kill(keeper, unix.SIGKILL)
	exit := w.finish(c)
	if exit.Unknown && kernelTells() {
		t.Errorf("exit = %+v, want 7\n%s", exit, w.keeperLog())
	}
	if !exit.Unknown && exit.Code != 7 {
		t.Errorf("exit = %+v, want 7", exit)
	}
}

// holdsPidfd says whether this process holds a pidfd of pid.
func holdsPidfd(pid int) bool {
	infos, _ := filepath.Glob("/proc/self/fdinfo/*")
	for _, f := range infos {
		b, _ := os.ReadFile(f)
		if strings.Contains(string(b), fmt.Sprintf("\nPid:\t%d\n", pid)) {
			return true
		}
	}
	return false
}

// kernelTells says whether a pidfd tells how its process ended: Linux 6.15 and newer.
func kernelTells() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
}
