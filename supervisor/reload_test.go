package supervisor

import (
	"slices"
	"testing"

	"github.com/wherry-run/wherry/supervisor/supervisortest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func TestReloadAppliesRegistries(t *testing.T) {
	world(t, func(t *testing.T, _ *supervisortest.World, o Options) {
		o.hooks.images = nil // the real store
		fresh := o
		o.Reload = func() (Options, error) { fresh.Reload = o.Reload; return fresh, nil }
		d := begin(t, o)
		defer d.end()
		fresh.Registries = map[string]Registry{"far.example:5000": {Insecure: true}}
		fresh.DockerConfig = "/root/.docker/config.json"
		fresh.Logging = unit.Logging{MaxSize: 1 << 20, MaxFile: 2}
		fresh.Bridge = "other0"
		res, err := d.Reload(t.Context(), "tester")
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(res.Applied)
		if !slices.Equal(res.Applied, []string{"docker_config", "logging", "registries"}) || !slices.Equal(res.NeedsRestart, []string{"network.bridge"}) {
			t.Errorf("%+v", res)
		}
		if res, err = d.Reload(t.Context(), "tester"); err != nil || len(res.Applied) != 0 {
			t.Errorf("a second time: %+v %v", res, err)
		}
	})
}
