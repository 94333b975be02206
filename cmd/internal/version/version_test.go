package version

import (
	"runtime/debug"
	"testing"
)

func TestText(t *testing.T) {
	if got := Text("v1.2.3"); got != "v1.2.3" {
		t.Errorf("the linker's word: %q", got)
	}
	commit := []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}}
	for _, c := range []struct {
		name, want string
		info       debug.BuildInfo
	}{
		{"go install", "v1.2.3", debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}},
		{"a checkout", "v0.0.0-20261122-abc+dirty", debug.BuildInfo{Main: debug.Module{Version: "v0.0.0-20261122-abc+dirty"}, Settings: commit}},
		{"an old go command", "0123456789ab", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: commit}},
		{"no repository", "devel", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}},
	} {
		if got := of(&c.info); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
