package quota

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(dqblk{}); n != 72 {
		t.Errorf("struct if_dqblk has 72 bytes, ours %d", n)
	}
	if n := unsafe.Sizeof(fsxattr{}); n != 28 {
		t.Errorf("struct fsxattr has 28 bytes, ours %d", n)
	}
	if n := unsafe.Sizeof(stateV{}); n < 160 {
		t.Errorf("struct fs_quota_statv has 160 bytes, ours %d", n)
	}
}

func TestReasons(t *testing.T) {
	for errno, want := range map[error]string{
		unix.ESRCH: "prjquota", unix.ENOSYS: "CONFIG_QFMT_V2", unix.EOPNOTSUPP: "mkfs.ext4", unix.ENOTTY: "mkfs.ext4", unix.EPERM: "root",
	} {
		if err := none("/x", errno); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	if err := none("/dev/shm", unix.ENOTTY); !strings.Contains(err.Error(), "tmpfs, which has none") {
		t.Error(err)
	}
	if err := none("/x", nil); err != nil {
		t.Error(err)
	}
	if err := none("/x", unix.EIO); errors.Is(err, ErrNone) || !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
}

// TestNone: a file system without them says so and changes nothing.
func TestNone(t *testing.T) {
	dir := t.TempDir()
	if Check(dir) == nil {
		t.Skip("the file system of temporary files has project quotas")
	}
	if err := Limit(First, 1<<20, dir); !errors.Is(err, ErrNone) {
		t.Error(err)
	} else {
		t.Log(err)
	}
	if p, set, err := projectOf(dir); err == nil && (p != 0 || set) {
		t.Error("a project all the same:", p)
	}
}

// scratch makes a small ext4 with projects and mounts it with options.
func scratch(t *testing.T, features, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	dir := t.TempDir()
	img, mnt := filepath.Join(dir, "img"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(img, nil, 0o600), os.Truncate(img, 64<<20), os.Mkdir(mnt, 0o700)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-O", features, img).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop,"+options, img, mnt).CombinedOutput(); err != nil {
		t.Skipf("this kernel mounts no ext4 with %s: %s", options, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return mnt
}

// TestProjectIsInherited needs no quotas, only an ext4 that knows projects.
func TestProjectIsInherited(t *testing.T) {
	mnt := scratch(t, "project", "noatime")
	upper := filepath.Join(mnt, "upper")
	if err := os.Mkdir(upper, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Check(upper); !errors.Is(err, ErrNone) {
		t.Error("quotas that were not switched on:", err)
	}
	if err := setProject(upper, First+1); err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(upper, "a", "b")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if p, set, err := projectOf(sub); err != nil || p != First+1 || !set {
		t.Errorf("project %d %v %v", p, set, err)
	}
}

func TestLimit(t *testing.T) {
	mnt := scratch(t, "quota,project", "prjquota")
	upper, work := filepath.Join(mnt, "upper"), filepath.Join(mnt, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		t.Fatal(err)
	}
	p, err := Free(mnt, map[Project]bool{First: true})
	if err != nil || p != First+1 {
		t.Fatal(p, err)
	}
	if err := Limit(p, 1<<20, upper, work); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(upper, "x"), make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeAsContainer(filepath.Join(work, "y"), make([]byte, 1<<20)); !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
		t.Error("no limit for both together:", err)
	}
	used, limit, err := Usage(mnt, p)
	if err != nil || used < 512<<10 || limit != 1<<20 {
		t.Error(used, limit, err)
	}
	if next, err := Free(mnt, nil); err != nil || next == p {
		t.Error("one that is in use:", next, err)
	}
	if err := Drop(mnt, p); err != nil {
		t.Error(err)
	}
}

// writeAsContainer writes without CAP_SYS_RESOURCE, to which no quota applies.
func writeAsContainer(path string, b []byte) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err == nil {
			err = unix.Capset(&header, &data[0])
		}
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		done <- err
	}()
	return <-done
}
