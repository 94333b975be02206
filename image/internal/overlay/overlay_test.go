package overlay

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestHostOptions(t *testing.T) {
	dir := t.TempDir()
	for name, v := range map[string]string{"index": "Y\n", "metacopy": "N\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := hostOptions(dir); !slices.Equal(got, []string{"index=off"}) {
		t.Error(got)
	}
	if got := hostOptions(filepath.Join(dir, "none")); len(got) != 0 {
		t.Error(got)
	}
}

func TestMountsLeaveTheStackAlone(t *testing.T) {
	lower := make([]string, 1, 4)
	lower[0] = "/l"
	s := Stack{Lower: lower, Empty: "/e"}
	for range 2 {
		if m := s.Mounts(); m[0].Options[0] != "lowerdir+=/l" || m[0].Options[1] != "lowerdir+=/e" {
			t.Error(m)
		}
	}
	if lower[:2][1] != "" {
		t.Error("the caller's slice was written")
	}
}
