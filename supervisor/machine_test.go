package supervisor

import (
	"slices"
	"testing"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

func TestProcessors(t *testing.T) {
	for list, want := range map[string]int{"0\n": 1, "0-1\n": 2, "0-3,8-11": 12, "0,2": 3, "": 0, "none": 0} {
		if got := processors(list); got != want {
			t.Errorf("%q: %d, want %d", list, got, want)
		}
	}
}

// TestMachineReachesTheSpec: the thermal counters of this host's processors are masked.
func TestMachineReachesTheSpec(t *testing.T) {
	if readMachine().CPUs == 0 {
		t.Skip("this host does not say which processors it may have")
	}
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		specs := make(chan []string, 1)
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			specs <- c.Spec.Linux.MaskedPaths
			return supervisortest.Script{}
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		masked := <-specs
		if path := "/sys/devices/system/cpu/cpu0/thermal_throttle"; !slices.Contains(masked, path) {
			t.Errorf("%s is not in %q", path, masked)
		}
	})
}
