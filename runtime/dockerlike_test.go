package runtime_test

import (
	"strings"
	"testing"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/spec"
)

// built is a container as runtime/spec builds it: Docker's capabilities,
// seccomp profile, masks and mounts.
func (w *world) built(args ...string) runtime.Config {
	w.tb.Helper()
	c := w.config(args...)
	res, err := spec.Build(spec.Image{Cmd: args, Env: []string{"PATH=/bin"}}, spec.Container{
		Hostname: "box", Network: spec.None, Limits: cgroup.Limits{Memory: 64 << 20, CPUs: 1, Pids: 100},
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	c.Spec, c.User, c.StopSignal = res.Spec, res.User, res.StopSignal
	return c
}

// TestDefaults runs a container with everything that is on by default, twice:
// the second start takes the cached filter.
func TestDefaults(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		c := w.built("sh", "-c", "grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status; unshare -U true 2>/dev/null || echo refused; exit 3")
		st := w.start(c)
		if st.State != runtime.Running {
			t.Errorf("status %+v", st)
		}
		if exit := w.finish(c); exit.Code != 3 {
			t.Errorf("exit = %+v", exit)
		}
		text := w.text(c)
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapEff:\t00000000a80425fb\n", "refused\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing in %q", want, text)
			}
		}
	}
}

func BenchmarkDefaults(b *testing.B) {
	w := newWorld(b)
	c := w.built("true")
	for b.Loop() {
		w.start(c)
		w.finish(c)
	}
}
