package integration

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestInstallDestdir: scripts/install below a folder is the same the second time, keeps what the operator has, and leaves nothing else when it
// is undone, there and nowhere else. What it does to a host is a story of the virtual machine.
func TestInstallDestdir(t *testing.T) {
	bin, pages, dest := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "new", "dest")
	for _, file := range []string{"wherry", "wherry-keeper", "wherry-verify", "wherry-ecr"} {
		writeFile(t, filepath.Join(bin, file), file)
	}
	for _, file := range []string{"man1/wherry.1", "man1/wherry-ctl-status.1", "man5/wherry.yaml.5", "man5/wherry-unit.5",
		"completions/wherry", "completions/_wherry", "completions/wherry.fish"} {
		writeFile(t, filepath.Join(pages, file), file)
	}
	install := func(args ...string) {
		t.Helper()
		args = append(args, "--destdir", dest)
		if out, err := exec.Command("../scripts/install", args...).CombinedOutput(); err != nil {
			t.Fatalf("scripts/install %v: %v\n%s", args, err, out)
		}
	}
	if out, err := exec.Command("../scripts/install", "--uninstall", "--destdir", dest).CombinedOutput(); err == nil || !strings.Contains(string(out), "no such folder") {
		t.Errorf("uninstalled from nowhere: %v %s", err, out)
	}
	if _, err := os.Stat(dest); err == nil {
		t.Error("the folder to uninstall from was made")
	}
	install("--bin", bin, "--pages", pages)
	first := tree(t, dest)
	for _, file := range []string{"usr/bin/wherry", "usr/lib/wherry/wherry-keeper", "usr/lib/systemd/system/wherry.service", "etc/wherry/wherry.yaml"} {
		if _, there := first[file]; !there {
			t.Errorf("%s was not installed", file)
		}
	}
	install("--bin", bin, "--pages", pages)
	if again := tree(t, dest); !maps.Equal(first, again) {
		t.Errorf("the second time: %v\nafter the first: %v", again, first)
	}
	install("--uninstall")
	install("--uninstall")
	if left := tree(t, dest); len(left) != 0 {
		t.Errorf("left: %v", slices.Sorted(maps.Keys(left)))
	}

	own := map[string]string{"etc/wherry/wherry.yaml": "gc: {high: 80%}\n", "etc/wherry/units/web.yaml": "image: web\n", "usr/bin/other": "other"}
	for file, text := range own {
		writeFile(t, filepath.Join(dest, file), text)
	}
	install("--bin", bin, "--pages", pages)
	install("--uninstall")
	left := tree(t, dest)
	for file, text := range own {
		if left[file] != text {
			t.Errorf("%s is %q after installation and removal", file, left[file])
		}
	}
	if len(left) != len(own) {
		t.Errorf("left: %v", slices.Sorted(maps.Keys(left)))
	}
	install("--uninstall", "--purge")
	if left := tree(t, dest); len(left) != 1 {
		t.Errorf("left by --purge: %v", slices.Sorted(maps.Keys(left)))
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// tree is every file below dir with its text, and every empty folder.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if !e.IsDir() {
			text, err := os.ReadFile(path)
			all[name] = string(text)
			return err
		}
		inside, err := os.ReadDir(path)
		if len(inside) == 0 {
			all[name] = "empty folder"
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
