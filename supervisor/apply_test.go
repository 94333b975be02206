package supervisor

import (
	"testing"

	"github.com/wherry-run/wherry/supervisor/api"
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
