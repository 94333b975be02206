package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestKeeperArgs: what is in the file counts as long as it can be read, and after that what was in it last.
func TestKeeperArgs(t *testing.T) {
	dir := t.TempDir()
	file, binary := filepath.Join(dir, "wherry.yaml"), filepath.Join(dir, "wherry-keeper")
	last := lastArgs(filepath.Join(dir, "run"), file)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(envCgroupParent, "wherry.slice/wherry-cargo.service")
	write("root: /srv/w\nrun_dir: [\nkeeper: " + binary + "\n")
	if args, _, err := keeperArgs(file, true, last); err == nil {
		t.Fatalf("broken from the beginning: %v", args)
	}
	write("root: /srv/w\nrun_dir: /run/w\nkeeper: " + binary + "\n")
	want := strings.Fields(binary + " --root /srv/w --run-dir /run/w --cgroup-parent wherry.slice/wherry-cargo.service")
	args, warning, err := keeperArgs(file, true, last)
	if err != nil || warning != nil || !slices.Equal(args, want) {
		t.Fatalf("%q, %v, %v", args, warning, err)
	}
	for _, text := range []string{"rot: /srv/other\n", "root: [", "root: 5\nnonsense"} {
		write(text)
		args, warning, err := keeperArgs(file, true, last)
		if err != nil || warning == nil || !slices.Equal(args, want) {
			t.Errorf("%q: %q, warning %v, error %v", text, args, warning, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if args, warning, err := keeperArgs(file, true, last); err != nil || warning == nil || !slices.Equal(args, want) {
		t.Errorf("a file that was named is gone: %q, %v, %v", args, warning, err)
	}
	if args, warning, err := keeperArgs(file, true, last+".other"); err == nil {
		t.Errorf("another one's: %q, %v", args, warning)
	}
}
