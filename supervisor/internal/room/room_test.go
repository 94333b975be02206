package room

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWords(t *testing.T) {
	for _, c := range []struct {
		st   unix.Statfs_t
		want string
	}{
		{unix.Statfs_t{Blocks: 100, Bfree: 60, Bavail: 50, Bsize: 4096, Files: 10, Ffree: 5}, ""},
		{unix.Statfs_t{Blocks: 100, Bfree: 60, Bavail: 0, Bsize: 4096, Files: 10, Ffree: 5}, full},
		{unix.Statfs_t{Blocks: 100, Bfree: 60, Bavail: 3, Bsize: 1024, Files: 10, Ffree: 5}, full},
		{unix.Statfs_t{Blocks: 100, Bfree: 60, Bavail: 0, Bsize: 4096, Files: 10, Ffree: 0}, noInodes},
		{unix.Statfs_t{Blocks: 100, Bfree: 60, Bavail: 0, Bsize: 4096, Flags: unix.ST_RDONLY}, readOnly},
		{unix.Statfs_t{Blocks: 100, Bfree: 60, Bavail: 50, Bsize: 4096}, ""}, // btrfs counts no inodes
		{unix.Statfs_t{}, ""}, // neither do pseudo file systems count blocks
	} {
		if got := words(c.st); got != c.want {
			t.Errorf("%+v: %q, want %q", c.st, got, c.want)
		}
	}
}

// smallTmpfs has one page and two inodes, one of them its root.
func smallTmpfs(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skip("tmpfs:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestExplain(t *testing.T) {
	roomy, few := smallTmpfs(t, "size=1m"), smallTmpfs(t, "size=1m,nr_inodes=2")
	packed := smallTmpfs(t, "size=4k")
	locked := smallTmpfs(t, "ro")
	if err := errors.Join(os.WriteFile(few+"/a", nil, 0o600), os.WriteFile(packed+"/a", make([]byte, 4096), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		in   string
		want string
	}{
		{nil, few, ""},
		{errors.New("else"), few, "else"},
		{unix.ENOSPC, roomy, "no space left on device"},
		{os.WriteFile(few+"/b", nil, 0o600), few, "open " + few + "/b: no space left on device (" + few + " has no inodes left)"},
		{errors.New("keeper: write x: no space left on device"), packed, "keeper: write x: no space left on device (" + packed + " is full)"},
		{os.Mkdir(locked+"/a", 0o700), locked, "mkdir " + locked + "/a: read-only file system (" + locked + " is mounted read-only)"},
		{unix.EROFS, packed, "read-only file system"},
	} {
		err := Explain(c.err, roomy, c.in)
		if fmt.Sprint(err) != c.want && (err != nil || c.want != "") {
			t.Errorf("%v: %v, want %s", c.err, err, c.want)
		}
		if c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%v is lost", c.err)
		}
		if again := Explain(err, roomy, c.in); fmt.Sprint(again) != fmt.Sprint(err) {
			t.Errorf("said twice: %v", again)
		}
	}
	if w := Warnings(roomy); len(w) != 0 {
		t.Errorf("warnings: %q", w)
	}
	if w := Warnings(roomy, few, packed, locked, few); len(w) != 3 {
		t.Errorf("warnings: %q", w)
	}
}
