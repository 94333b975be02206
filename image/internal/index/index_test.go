package index

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIndexIsKept(t *testing.T) {
	dir := t.TempDir()
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	next := x.Clone()
	next.Images["m"] = Image{Digest: "m", Layers: []Layer{{Digest: "d", Key: "k"}}}
	next.Names["b"], next.Names["a"] = "m", "m"
	if len(x.Images) != 0 || len(x.Names) != 0 {
		t.Error("the clone is the original")
	}
	if err := next.Save(); err != nil {
		t.Fatal(err)
	}
	x, err = Open(dir)
	if err != nil || x.Images["m"].Layers[0].Key != "k" || strings.Join(x.NamesOf("m"), " ") != "a b" || len(x.NamesOf("n")) != 0 {
		t.Error(x, err)
	}
}

func TestIndexFromElsewhere(t *testing.T) {
	for content, want := range map[string]string{`{"version":99}`: "version 99 is newer"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
		}
	}
}

// A damaged index gives way to the version before it, or to none.
func TestDamagedIndex(t *testing.T) {
	for _, content := range []string{"", "{", `{"version":1,"images":null}`} {
		dir := t.TempDir()
		x, err := Open(dir)
		if err != nil || x.Recovered != "" {
			t.Fatal(err, x.Recovered)
		}
		harm := func() {
			if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if x, err = Open(dir); err != nil || x.Recovered == "" {
				t.Fatalf("%q: %v", content, err)
			}
		}
		harm()
		if len(x.Images) != 0 {
			t.Error(x)
		}
		for _, name := range []string{"first", "second"} {
			x.Names[name] = "m"
			if err := x.Save(); err != nil {
				t.Fatal(err)
			}
		}
		harm()
		if len(x.Names) != 1 || x.Names["first"] != "m" {
			t.Errorf("%q: %v", content, x.Names)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "index.json.damaged")); err != nil || string(b) != content {
			t.Errorf("%q %v", b, err)
		}
		if again, err := Open(dir); err != nil || again.Recovered != "" || len(again.Names) != 1 {
			t.Error(again, err)
		}
	}
}

func TestLeases(t *testing.T) {
	dir := t.TempDir()
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"b", "a", "b"} {
		if err := x.SetLease(Lease{ID: id, Digest: "m", Keys: []string{"k" + id}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "leases", "cut"), []byte(`{"dig`), 0o600); err != nil {
		t.Fatal(err)
	}
	all, broken, err := x.Leases()
	if err != nil || len(all) != 2 || all[0].ID != "a" || all[1].Keys[0] != "kb" || len(broken) != 1 {
		t.Error(all, broken, err)
	}
	if _, broken, _ = x.Leases(); len(broken) != 0 {
		t.Error("a broken lease stays")
	}
	if err := x.DropLease("a"); err != nil {
		t.Error(err)
	}
	if err := x.DropLease("../index.json"); err == nil {
		t.Error("a path is no id")
	}
}
