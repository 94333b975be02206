package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

func TestOCIArgs(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want []string
		oci  bool
	}{
		{"wherry-keeper", []string{"oci", "list"}, []string{"list"}, true},
		{"/usr/bin/wherry-oci", []string{"list"}, []string{"list"}, true},
		{"wherry-runc", nil, nil, true},
		{"wherry-keeper", []string{"--root", "/x"}, []string{"--root", "/x"}, false},
		{"wherry-keeper", []string{"--root", "oci"}, []string{"--root", "oci"}, false},
	} {
		if got, ok := ociArgs(tt.name, tt.args); ok != tt.oci || !slices.Equal(got, tt.want) {
			t.Errorf("%s %v: %v, %v", tt.name, tt.args, got, ok)
		}
	}
}

func TestOCIParse(t *testing.T) {
	for _, tt := range []struct {
		args    string
		foreign bool
		min     int
		max     int
		words   string
		force   bool
		fails   bool
	}{
		{"a", false, 1, 1, "a", false, false},
		{"--force a", false, 1, 1, "a", true, false},
		{"-f a", false, 1, 1, "a", true, false},
		{"a --force", false, 1, 1, "a", true, false}, // as runc allows
		{"a --force", true, 1, -1, "a --force", false, false},
		{"-- a --force", false, 1, 2, "a --force", false, false},
		{"", false, 1, 1, "", false, true},
		{"a b", false, 1, 1, "", false, true},
		{"--nonsense a", false, 1, 1, "", false, true},
	} {
		fs := newOCIFlags("delete")
		var force bool
		ociAlias(fs, &force, "", "force", "f")
		words, err := ociParse(fs, strings.Fields(tt.args), tt.foreign, tt.min, tt.max)
		if tt.fails {
			if !errors.Is(err, errUsage) {
				t.Errorf("%q: %v", tt.args, err)
			}
			continue
		}
		if err != nil || strings.Join(words, " ") != tt.words || force != tt.force {
			t.Errorf("%q: %v, %v, %v", tt.args, words, force, err)
		}
	}
}

// TestOCINumber: what has no number gets one, engines look for it.
func TestOCINumber(t *testing.T) {
	for build, want := range map[string]string{
		"v1.2.3": "v1.2.3", "1.2.3": "1.2.3", "v0.0.0-20261122000000-abcdef+dirty": "v0.0.0-20261122000000-abcdef+dirty",
		"0123456789ab": "0.0.0+0123456789ab", "devel": "0.0.0+devel",
	} {
		if got := ociNumber(build); got != want {
			t.Errorf("%q: %q, want %q", build, got, want)
		}
	}
}

func TestOCISizes(t *testing.T) {
	for s, want := range map[string]int64{
		"-1": -1, "0": 0, "4096": 4096, "1k": 1 << 10, "1K": 1 << 10, "32m": 32 << 20, "32MB": 32 << 20, "32MiB": 32 << 20,
		"1.5g": 3 << 29, "1t": 1 << 40, "7b": 7,
	} {
		if got, err := parseOCISize(s); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "m", "-2", "1x", "much", "9999999999999g"} {
		if got, err := parseOCISize(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}

func TestSubGroups(t *testing.T) {
	got, err := subGroups([]string{"cpu,memory:a", "pids:b"})
	if err != nil || len(got) != 3 || got["cpu"] != "a" || got["memory"] != "a" || got["pids"] != "b" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := subGroups([]string{"a"}); err != nil || got[""] != "a" {
		t.Errorf("v2: %v, %v", got, err)
	}
	if got, err := subGroups(nil); got != nil || err != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	for _, bad := range [][]string{{"a", "b"}, {"cpu:a", "cpu:b"}, {":a"}, {"cpu,:a"}} {
		if _, err := subGroups(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// TestLookCommand: what is said of a command is what the engines know.
func TestLookCommand(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "bin/folder"), 0o755)
	os.WriteFile(filepath.Join(dir, "bin/run"), nil, 0o755)
	os.WriteFile(filepath.Join(dir, "bin/plain"), nil, 0o644)
	os.Symlink("/bin/run", filepath.Join(dir, "bin/link"))
	os.Symlink("/etc/passwd", filepath.Join(dir, "bin/out")) // it is not in this root
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	env := []string{"PATH=/nowhere", "PATH=/sbin:/bin"}
	for name, want := range map[string]string{
		"run": "", "link": "", "/bin/run": "", "/bin/link": "", "./run": "", "bin/run": "no such file or directory",
		"plain": "executable file not found in $PATH", "folder": "executable file not found in $PATH", "none": "executable file not found in $PATH",
		"out": "executable file not found in $PATH", "/bin/plain": "permission denied", "/bin/none": "no such file or directory",
		"/bin/run/x": "no such file or directory", "/bin/folder": "is a directory",
	} {
		err := lookCommand(root, name, "/bin", env)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestExecWords(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"x", runtime.ErrCommand, `exec: "x": executable file not found in $PATH`},
		{"/x", runtime.ErrCommand, `exec: "/x": stat /x: no such file or directory`},
		{"/x", errors.Join(runtime.ErrNotExecutable, unix.EACCES), "exec /x: permission denied"},
		{"/x", errors.New("fork: no"), `exec "/x": fork: no`},
	} {
		if got := execWords(tt.name, tt.err).Error(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestWrappable(t *testing.T) {
	spec := func(change func(*specs.Spec)) *specs.Spec {
		s := &specs.Spec{Process: &specs.Process{}, Mounts: []specs.Mount{{Destination: "/proc/", Type: "proc"}}}
		change(s)
		return s
	}
	for name, tt := range map[string]struct {
		change func(*specs.Spec)
		want   bool
	}{
		"plain":    {func(*specs.Spec) {}, true},
		"no proc":  {func(s *specs.Spec) { s.Mounts = nil }, false},
		"apparmor": {func(s *specs.Spec) { s.Process.ApparmorProfile = "x" }, false},
		"selinux":  {func(s *specs.Spec) { s.Process.SelinuxLabel = "x" }, false},
		"hook inside": {func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x"}}}
		}, false},
	} {
		if got := wrappable(spec(tt.change)); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
