package supervisor

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image"
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

// TestReloadRefusesWhatCannotBe: a policy that nobody can follow changes nothing, neither
// what the daemon knows nor what the store obeys, and whoever reloads hears why.
func TestReloadRefusesWhatCannotBe(t *testing.T) {
	world(t, func(t *testing.T, _ *supervisortest.World, o Options) {
		o.hooks.images = nil // the real store
		fresh := o
		o.Reload = func() (Options, error) { fresh.Reload = o.Reload; return fresh, nil }
		d := begin(t, o)
		defer d.end()
		strict := map[string]Registry{"far.example:5000": {Policy: []image.TrustRule{{Require: image.Reject}}}}
		fresh.Registries = strict
		if _, err := d.Reload(t.Context(), "tester"); err != nil {
			t.Fatal(err)
		}
		for want, broken := range map[string]Registry{
			"/nowhere/key.pem": {Policy: []image.TrustRule{{Require: image.Signed, Signers: []image.Signer{{Key: "/nowhere/key.pem"}}}}},
			"::":               {Mirrors: []string{"http://::bad"}},
		} {
			fresh.Registries = map[string]Registry{"far.example:5000": broken}
			fresh.Logging = unit.Logging{MaxSize: 1 << 20, MaxFile: 2}
			_, err := d.Reload(t.Context(), "tester")
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", want, err)
			}
			if now := d.opts.Load(); !reflect.DeepEqual(now.Registries, strict) || now.Logging == fresh.Logging {
				t.Errorf("%s: half of it was taken over: %+v", want, now.Registries)
			}
			if _, err := d.Images().Pull(t.Context(), "far.example:5000/app:1", image.PullOptions{}); !errors.Is(err, image.ErrUntrusted) {
				t.Errorf("%s: the store obeys another policy: %v", want, err)
			}
		}
	})
}
