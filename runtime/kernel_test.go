package runtime_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/runtime"
)

func TestRunToTheEnd(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name string
		args []string
		want runtime.Exit
		text string
	}{
		{"true", []string{"true"}, runtime.Exit{}, ""},
		{"code", []string{"sh", "-c", "exit 7"}, runtime.Exit{Code: 7}, ""},
		{"code above 128", []string{"sh", "-c", "exit 137"}, runtime.Exit{Code: 137}, ""},
		{"signal", []string{"sh", "-c", "kill -9 $$"}, runtime.Exit{Signal: "SIGKILL"}, ""},
		{"output", []string{"sh", "-c", "echo out; echo out"}, runtime.Exit{}, "out\nout\n"},
		{"errors", []string{"sh", "-c", "echo err >&2"}, runtime.Exit{}, "err\n"},
		{"no newline at the end", []string{"sh", "-c", "echo -n end"}, runtime.Exit{}, "end"},
	}
	for _, init := range []bool{true, false} {
		for _, tt := range tests {
			name := tt.name
			if !init {
				name += " without init"
			}
			t.Run(name, func(t *testing.T) {
				w := w.on(t)
				if !init && tt.name == "signal" {
					t.Skip("a PID 1 cannot kill itself")
				}
				c := w.config(tt.args...)
				c.Init = init
				st := w.start(c)
				if st.State != runtime.Running || st.Pid == 0 {
					t.Errorf("status after start: %+v", st)
				}
				exit := w.finish(c)
				if exit.Code != tt.want.Code || exit.Signal != tt.want.Signal || exit.OOM || exit.Unknown || exit.At.IsZero() {
					t.Errorf("exit = %+v, want %+v", exit, tt.want)
				}
				if got := strings.TrimSuffix(w.text(c), "\n"); got != strings.TrimSuffix(tt.text, "\n") {
					t.Errorf("output = %q, want %q", got, tt.text)
				}
			})
		}
	}
}

func TestStartFails(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name string
		edit func(*runtime.Config)
		step runtime.Step
		want error
	}{
		{"command not found", func(c *runtime.Config) { c.Spec.Process.Args = []string{"nonsense"} }, runtime.StepProcess, runtime.ErrCommand},
		{"path not found", func(c *runtime.Config) { c.Spec.Process.Args = []string{"/no/such"} }, runtime.StepProcess, runtime.ErrCommand},
		{"interpreter not found", func(c *runtime.Config) { c.Spec.Process.Args = []string{"lost"} }, runtime.StepProcess, runtime.ErrCommand},
		{"not executable", func(c *runtime.Config) { c.Spec.Process.Args = []string{"/bin/plain"} }, runtime.StepProcess, runtime.ErrNotExecutable},
		{"a folder", func(c *runtime.Config) { c.Spec.Process.Args = []string{"/bin"} }, runtime.StepProcess, runtime.ErrNotExecutable},
		{"unknown user", func(c *runtime.Config) { c.User = "nobody-here" }, runtime.StepProcess, nil},
		{"missing layer", func(c *runtime.Config) { c.Rootfs[0].Options[0] = "lowerdir+=/no/such/layer" }, runtime.StepRootfs, os.ErrNotExist},
		{"missing bind source", func(c *runtime.Config) {
			c.Spec.Mounts = append(c.Spec.Mounts, bind("/no/such/source", "/mnt"))
		}, runtime.StepRootfs, nil},
		{"bad run name", func(c *runtime.Config) { c.Run = "../x" }, runtime.StepProcess, nil},
	}
	for _, tt := range tests {
		for _, init := range []bool{true, false} {
			t.Run(tt.name, func(t *testing.T) {
				w := w.on(t)
				c := w.config("true")
				c.Init = init
				tt.edit(&c)
				_, err := w.rt.Start(t.Context(), c)
				var se *runtime.StepError
				if !errors.As(err, &se) || se.Step != tt.step {
					t.Fatalf("error = %v, want one of step %s", err, tt.step)
				}
				if tt.want != nil && !errors.Is(err, tt.want) && tt.want != os.ErrNotExist {
					t.Errorf("error = %v, want %v", err, tt.want)
				}
				t.Log(err)
				if list, _ := w.rt.List(t.Context()); len(list) != 0 {
					t.Errorf("containers left: %+v", list)
				}
				w.checkContainersLeft()
			})
		}
	}
}

func BenchmarkTrue(b *testing.B) {
	w := newWorld(b)
	c := w.config("true")
	for b.Loop() {
		w.start(c)
		w.finish(c)
	}
}

func BenchmarkExec(b *testing.B) {
	w := newWorld(b)
	c := w.config("sleep", "1000")
	w.start(c)
	for b.Loop() {
		if exit, err := w.rt.Exec(b.Context(), c.ID(), runtime.Process{Args: []string{"true"}}); err != nil || exit.Code != 0 {
			b.Fatal(exit, err)
		}
	}
}

// BenchmarkOutput is how fast output gets into the log file.
func BenchmarkOutput(b *testing.B) {
	w := newWorld(b)
	const size = 64 << 20
	b.SetBytes(size)
	c := w.config("sh", "-c", "busybox yes 'a line of output as services write them, of some eighty characters in all' | busybox head -c 67108864")
	for b.Loop() {
		w.start(c)
		w.finish(c)
	}
}
