package supervisor

import (
	"testing"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// TestBaseDir: a file from stdin has no folder of its own, and one without a
// known folder gets none that would be the daemon's.
func TestBaseDir(t *testing.T) {
	for want, f := range map[string]api.File{
		"/srv/units": {Source: "/srv/units/web.yaml"},
		"/home/a":    {Source: "-", Dir: "/home/a"},
		"":           {Source: "web.yaml"},
	} {
		if got := baseDir(f); got != want {
			t.Errorf("%+v: %q, want %q", f, got, want)
		}
	}
	if got := baseDir(api.File{Source: "-", Dir: "here"}); got != "" {
		t.Errorf("a relative folder: %q", got)
	}
}

// What a diff foresees is what an apply does: other credentials replace no run.
func TestDiffForeseesNoReplacement(t *testing.T) {
	world(t, func(t *testing.T, _ *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply("name: web\nimage: nginx\n")
		d.want("web", "running")
		for text, actions := range map[string]int{
			"name: web\nimage: nginx\nregistry_auth: {token_file: /t}\n": 0,
			"name: web\nimage: nginx\nstorage_opt: {size: 1GiB}\n":       1,
		} {
			res, err := d.Apply(t.Context(), api.ApplyRequest{DryRun: true, Files: []api.File{{Source: "/u/web.yaml", Text: text}}}, "tester")
			if err != nil || len(res.Units[0].Fields) != 1 || len(res.Actions) < actions || actions == 0 && len(res.Actions) > 0 {
				t.Errorf("%s: %+v, %v", text, res, err)
			}
		}
	})
}
