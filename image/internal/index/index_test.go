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
	for content, want := range map[string]string{"{": "index.json: unexpected end", `{"version":99}`: "version 99 is newer"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
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
