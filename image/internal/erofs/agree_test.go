package erofs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	other "github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"
)

// agree has everybody who can read an image read this one.
func agree(t *testing.T, s *source, root *Inode) {
	t.Helper()
	want := s.want(root)
	compare(t, "ours", readOurs(t, s.file), want)
	compare(t, "go-erofs", readOther(t, s.file), want)
	fsck(t, s.file)
	if os.Geteuid() == 0 {
		compare(t, "kernel", readKernel(t, s.file), want)
	}
}

func TestReadersAgree(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSource(t, seed, Options{Name: "test", UUID: [16]byte{byte(seed), 1}, Sync: 1 << 20})
			root := s.folder(4)
			agree(t, s.finish(root), root)
		})
	}
}

func readOurs(t *testing.T, file string) []string {
	t.Helper()
	f, img := open(t, file)
	defer f.Close()
	var out []string
	err := img.Walk(func(path string, n *Node) error {
		var sum uint32
		var target string
		switch n.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			r, err := n.Open()
			if err != nil {
				return err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			sum = superChecksum(b)
		case unix.S_IFLNK:
			var err error
			if target, err = n.Readlink(); err != nil {
				return err
			}
		}
		xattrs, err := n.Xattrs()
		if err != nil {
			return err
		}
		found, err := img.Lookup(path)
		if err != nil || found.Ino != n.Ino {
			return fmt.Errorf("lookup of %q: %v %v", path, found, err)
		}
		out = append(out, line(path, n.Stat, target, xattrs, sum))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func open(t testing.TB, file string) (*os.File, *Reader) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	img, err := Open(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	return f, img
}

// readOther reads with go-erofs, which shares no code with us.
func readOther(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := other.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	var visit func(string)
	visit = func(path string) {
		fi, err := img.(fs.ReadLinkFS).Lstat("/" + path)
		if err != nil {
			t.Fatal(path, err)
		}
		st := fi.Sys().(*other.Stat)
		my := Stat{
			Mode: unixMode(st.Mode), UID: st.UID, GID: st.GID, Nlink: uint32(st.Nlink), Size: fi.Size(),
			Mtime: int64(st.Mtime), MtimeNsec: st.MtimeNs, Rdev: unix.Mkdev(st.Rdev>>8&0xfff, st.Rdev&0xff|st.Rdev>>12&^0xff),
		}
		var target string
		var sum uint32
		switch my.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			if target, err = img.(fs.ReadLinkFS).ReadLink("/" + path); err != nil {
				t.Fatal(path, err)
			}
		case unix.S_IFREG:
			b, err := fs.ReadFile(img, "/"+path)
			if err != nil {
				t.Fatal(path, err)
			}
			sum = superChecksum(b)
		}
		out = append(out, line(path, my, target, st.Xattrs, sum))
		if fi.IsDir() {
			entries, err := fs.ReadDir(img, "/"+path)
			if err != nil {
				t.Fatal(path, err)
			}
			for _, e := range entries {
				visit(strings.TrimPrefix(path+"/"+e.Name(), "/"))
			}
		}
	}
	visit("")
	return out
}

func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, unixBit := range map[fs.FileMode]uint32{fs.ModeSetuid: unix.S_ISUID, fs.ModeSetgid: unix.S_ISGID, fs.ModeSticky: unix.S_ISVTX} {
		if m&bit != 0 {
			mode |= unixBit
		}
	}
	switch m.Type() {
	case fs.ModeDir:
		return mode | unix.S_IFDIR
	case fs.ModeSymlink:
		return mode | unix.S_IFLNK
	case fs.ModeDevice:
		return mode | unix.S_IFBLK
	case fs.ModeDevice | fs.ModeCharDevice:
		return mode | unix.S_IFCHR
	case fs.ModeNamedPipe:
		return mode | unix.S_IFIFO
	case fs.ModeSocket:
		return mode | unix.S_IFSOCK
	}
	return mode | unix.S_IFREG
}

func fsck(t *testing.T, file string) {
	t.Helper()
	if _, err := exec.LookPath("fsck.erofs"); err != nil {
		t.Log("no fsck.erofs: not asked")
		return
	}
	out, err := exec.Command("fsck.erofs", file).CombinedOutput()
	if err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, out)
	}
}

// kernelMount mounts an image in a folder of the test. Without a file-backed
// mount the test is skipped.
func kernelMount(t *testing.T, file string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(file, dir, "erofs", unix.MS_RDONLY, ""); err != nil {
		if errors.Is(err, unix.ENOTBLK) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) {
			t.Skip("this kernel mounts no EROFS from a file:", err)
		}
		t.Fatal("mount:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error("unmount:", err)
		}
	})
	return dir
}

func readKernel(t *testing.T, file string) []string {
	t.Helper()
	return readTree(t, kernelMount(t, file))
}

// readTree reads what is mounted.
func readTree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		my := Stat{
			Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: uint32(st.Nlink), Size: st.Size, Rdev: uint64(st.Rdev),
			Mtime: st.Mtim.Sec, MtimeNsec: uint32(st.Mtim.Nsec),
		}
		var sum uint32
		var target string
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum = superChecksum(b)
		case unix.S_IFLNK:
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		xattrs, err := listXattrs(path)
		if err != nil {
			return err
		}
		out = append(out, line(strings.TrimPrefix(strings.TrimPrefix(path, dir), "/"), my, target, xattrs, sum))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func listXattrs(path string) (map[string]string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, name, err)
		}
		out[name] = string(value[:n])
	}
	return out, nil
}
