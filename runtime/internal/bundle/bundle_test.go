package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNew(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	l, err := New(link, filepath.Join(dir, "absent"))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Rootfs("web.1-7f3k", "app"); got != filepath.Join(real, "runs/web.1-7f3k/app/rootfs") {
		t.Errorf("rootfs = %s: the link is still in it", got)
	}
	if got := l.Pipe("id", "stdout"); got != filepath.Join(dir, "absent/containers/id.stdout") {
		t.Errorf("pipe = %s", got)
	}
	for _, pair := range [][2]string{{"", "x"}, {"x", ""}} {
		if _, err := New(pair[0], pair[1]); err == nil {
			t.Errorf("New(%q, %q): no error", pair[0], pair[1])
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"web.1-7f3k", "app", "a", "A_1+b"} {
		if err := CheckName(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", ".x", "-x", "a/b", "a b", "a\x00", "ä", strings.Repeat("a", 101)} {
		if CheckName(bad) == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.json")
	for _, want := range []string{"first", "second"} {
		if err := WriteJSON(path, want); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := ReadJSON(path, &got); err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if err := WriteJSON(path, func() {}); err == nil {
		t.Error("a function was written")
	}
	if err := WriteJSON(filepath.Join(dir, "absent", "x"), 1); err == nil {
		t.Error("written into no folder")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ReadJSON(path, new(string)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("half a file: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestRemoveTemporary(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"web.json", ".web.json.123"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveTemporary(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "web.json" {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestReplaceExchanges: the older file's place is taken by an exchange, so the name always has
// one of the two, and nothing else stays.
func TestReplaceExchanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	for _, want := range []string{"first", "second", "third"} {
		if err := WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
			t.Errorf("left: %v, %v", all, err)
		}
	}
}
