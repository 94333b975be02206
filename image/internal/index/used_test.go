package index

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestUse(t *testing.T) {
	dir := t.TempDir()
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !x.Used("sha256:aa").IsZero() {
		t.Error("used before it was")
	}
	if err := x.ForgetUse(); err != nil {
		t.Error("nothing to forget:", err)
	}
	first := time.Unix(1_700_000_000, 0)
	for i, digest := range []string{"sha256:aa", "sha256:bb", "sha256:aa"} {
		if err := x.Touch(digest, first.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if x, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	if a, b := x.Used("sha256:aa"), x.Used("sha256:bb"); !a.Equal(first.Add(2*time.Hour)) || !b.Equal(first.Add(time.Hour)) {
		t.Error(a, b)
	}
	x.Images["sha256:bb"] = Image{}
	if err := x.ForgetUse(); err != nil || !x.Used("sha256:aa").IsZero() || x.Used("sha256:bb").IsZero() {
		t.Error("what is not in the index is not forgotten, or what is:", err)
	}
}

func TestSizes(t *testing.T) {
	dir := t.TempDir()
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := x.LoadSizes(); len(got) != 0 {
		t.Error(got)
	}
	if err := x.SaveSizes(Sizes{"k": {4096, 2}}); err != nil {
		t.Fatal(err)
	}
	if got := x.LoadSizes(); got["k"] != [2]int64{4096, 2} {
		t.Error(got)
	}
	for _, damage := range []string{`{"k":[4`, `null`, ``} {
		if err := os.WriteFile(filepath.Join(dir, "sizes.json"), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := x.LoadSizes(); got == nil || len(got) != 0 {
			t.Errorf("%q: %v", damage, got)
		}
	}
}

func TestLeaseOfOne(t *testing.T) {
	x, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := x.SetLease(Lease{ID: "web.1", Digest: "m", Dir: "/runs/web.1"}); err != nil {
		t.Fatal(err)
	}
	if l, ok := x.Lease("web.1"); !ok || l.ID != "web.1" || l.Digest != "m" || l.Dir != "/runs/web.1" {
		t.Error(l, ok)
	}
	for _, id := range []string{"other", "../index.json", ""} {
		if l, ok := x.Lease(id); ok {
			t.Error(l)
		}
	}
}
