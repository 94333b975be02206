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
	lower := make([]Layer, 1, 4)
	lower[0].Dir = "/l"
	s := Stack{Lower: lower, Empty: "/e"}
	for range 2 {
		if m := s.Mounts(); m[0].Options[0] != "lowerdir+=/l" || m[0].Options[1] != "lowerdir+=/e" {
			t.Error(m)
		}
	}
	if lower[:2][1].Dir != "" {
		t.Error("the caller's slice was written")
	}
}

func TestMountsOfBothForms(t *testing.T) {
	s := Stack{Lower: []Layer{{Dir: "/a/mnt", Image: "/a/layer.erofs"}, {Dir: "/b"}, {Dir: "/c/mnt", Image: "/c/layer.erofs"}}, Upper: "/u", Work: "/w"}
	m := s.Mounts()
	if len(m) != 3 || m[2].Destination != "/" {
		t.Fatal(m)
	}
	for i, key := range []string{"/a", "/c"} {
		if m[i].Type != "erofs" || m[i].Destination != key+"/mnt" || m[i].Source != key+"/layer.erofs" {
			t.Error(m[i])
		}
	}
	want := []string{"lowerdir+=/a/mnt", "lowerdir+=/b", "lowerdir+=/c/mnt", "upperdir=/u", "workdir=/w", "xino=on"}
	if got := m[2].Options; len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("got %v, want %v", got, want)
	}
	only := Stack{Lower: s.Lower[:1], Empty: "/e"}.Mounts()
	if len(only) != 2 || only[1].Options[1] != "lowerdir+=/e" {
		t.Error("a single image and no upper folder:", only)
	}
}
