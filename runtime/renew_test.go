package runtime

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSameContent(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a := write("a", "one build")
	link := filepath.Join(dir, "link")
	if err := os.Link(a, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		a: true, link: true, write("copy", "one build"): true, write("other", "two build"): false, write("longer", "one build more"): false,
	} {
		if got, err := sameContent(a, path); err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", filepath.Base(path), got, err, want)
		}
	}
	if _, err := sameContent(a, filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("a missing binary: %v", err)
	}
}
