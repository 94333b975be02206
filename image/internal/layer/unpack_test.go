package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

type entry = imagetest.Entry

// unpack unpacks entries into a new folder and describes what came out.
func unpack(t *testing.T, o Options, entries ...entry) (string, Result, error) {
	t.Helper()
	return unpackTar(t, o, imagetest.Archive(entries...))
}

func unpackTar(t *testing.T, o Options, archive []byte) (string, Result, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "diff")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	res, err := Unpack(context.Background(), bytes.NewReader(archive), dir, o)
	return dir, res, err
}

// describe lists a tree, one line a name: type, mode, content or target.
func describe(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := rel
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			line += "/"
			if fd, err := unix.Open(p, unix.O_RDONLY, 0); err == nil {
				if isOpaque(fd) {
					line += " opaque"
				}
				unix.Close(fd)
			}
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			line += " -> " + target
		case unix.S_IFCHR:
			if isWhiteout(&st) {
				line += " gone"
			} else {
				line += fmt.Sprintf(" c%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
			}
		case unix.S_IFIFO:
			line += " fifo"
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + string(b)
		}
		if rel != "." {
			lines = append(lines, line)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func TestUnpackShapes(t *testing.T) {
	long := strings.Repeat("long/", 60) + strings.Repeat("n", 200)
	for _, c := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"plain", []entry{{Name: "a/"}, {Name: "a/f", Body: "x"}, {Name: "a/l", Link: "f"}}, "a/\na/f x\na/l -> f"},
		{"dots and slashes", []entry{{Name: "./"}, {Name: "./a/"}, {Name: "/a//f", Body: "x"}, {Name: "././a/./g", Body: "y"}}, "a/\na/f x\na/g y"},
		{"hard link", []entry{{Name: "f", Body: "x"}, {Name: "g", Link: "f", Type: tar.TypeLink}, {Name: "h", Link: "/f", Type: tar.TypeLink}}, "f x\ng x\nh x"},
		{"hard link to a symlink", []entry{{Name: "l", Link: "nowhere"}, {Name: "m", Link: "l", Type: tar.TypeLink}}, "l -> nowhere\nm -> nowhere"},
		{"duplicate file", []entry{{Name: "f", Body: "old"}, {Name: "f", Body: "new"}}, "f new"},
		{"folder, file, folder", []entry{{Name: "a/"}, {Name: "a/f", Body: "x"}, {Name: "a", Body: "file"}, {Name: "a/", Mode: 0o700}, {Name: "a/g", Body: "y"}}, "a/ opaque\na/g y"},
		{"folder to file", []entry{{Name: "a/"}, {Name: "a/b/"}, {Name: "a/b/f", Body: "x"}, {Name: "a", Body: "file"}}, "a file"},
		{"folder twice keeps content", []entry{{Name: "a/"}, {Name: "a/f", Body: "x"}, {Name: "a/"}}, "a/\na/f x"},
		{"symlink to folder", []entry{{Name: "a", Link: "b"}, {Name: "a/"}, {Name: "a/f", Body: "x"}}, "a/ opaque\na/f x"},
		{"through a symlink", []entry{{Name: "usr/"}, {Name: "usr/lib/"}, {Name: "lib", Link: "usr/lib"}, {Name: "lib/f", Body: "x"}}, "lib -> usr/lib\nusr/\nusr/lib/\nusr/lib/f x"},
		{"through an absolute symlink", []entry{{Name: "etc/"}, {Name: "l", Link: "/etc"}, {Name: "l/passwd", Body: "x"}}, "etc/\netc/passwd x\nl -> /etc"},
		{"through a symlink upwards", []entry{{Name: "l", Link: "../../../x"}, {Name: "l/f", Body: "y"}}, "l -> ../../../x\nx/\nx/f y"},
		{"through a chain of symlinks", []entry{{Name: "a", Link: "b"}, {Name: "b", Link: "c/d"}, {Name: "c/"}, {Name: "a/f", Body: "x"}}, "a -> b\nb -> c/d\nc/\nc/d/\nc/d/f x"},
		{"whiteout", []entry{{Name: "a/"}, {Name: "a/.wh.f"}}, "a/\na/f gone"},
		{"whiteout as hard link", []entry{{Name: "a/"}, {Name: "a/.wh.f", Type: tar.TypeLink, Link: "a/.wh.g"}}, "a/\na/f gone"},
		{"whiteout, then file", []entry{{Name: ".wh.f"}, {Name: "f", Body: "x"}}, "f x"},
		{"file, then whiteout", []entry{{Name: "f", Body: "x"}, {Name: ".wh.f"}}, "f x"},
		{"whiteout, then folder", []entry{{Name: ".wh.d"}, {Name: "d/"}, {Name: "d/f", Body: "x"}}, "d/ opaque\nd/f x"},
		{"folder, then whiteout", []entry{{Name: "d/"}, {Name: "d/f", Body: "x"}, {Name: ".wh.d"}}, "d/ opaque\nd/f x"},
		{"whiteout, then a file in it", []entry{{Name: ".wh.d"}, {Name: "d/f", Body: "x"}}, "d/ opaque\nd/f x"},
		{"opaque first", []entry{{Name: "d/"}, {Name: "d/.wh..wh..opq"}, {Name: "d/f", Body: "x"}}, "d/ opaque\nd/f x"},
		{"opaque last", []entry{{Name: "d/"}, {Name: "d/f", Body: "x"}, {Name: "d/.wh..wh..opq"}}, "d/ opaque\nd/f x"},
		{"whiteout in an opaque folder", []entry{{Name: "d/"}, {Name: "d/.wh.f"}, {Name: "d/e/"}, {Name: "d/e/.wh.g"}, {Name: "d/.wh..wh..opq"}}, "d/ opaque\nd/e/"},
		{"aufs leftovers", []entry{{Name: ".wh..wh.plnk/"}, {Name: ".wh..wh.plnk/12.34", Body: "x"}, {Name: ".wh..wh.aufs"}, {Name: "f", Body: "y"}}, "f y"},
		{"long names", []entry{{Name: long, Body: "x"}, {Name: "l", Link: long}}, longWant(long)},
		{"fifo", []entry{{Name: "p", Type: tar.TypeFifo}}, "p fifo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, _, err := unpack(t, Options{}, c.entries...)
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(t, dir); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func longWant(name string) string {
	lines := []string{"l -> " + name}
	for i := range name {
		if name[i] == '/' {
			lines = append(lines, name[:i]+"/")
		}
	}
	return strings.Join(append(lines, name+" x"), "\n")
}

func TestUnpackRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"parent", []entry{{Name: "../x", Body: "x"}}, `entry "../x": name contains ".."`},
		{"parent inside", []entry{{Name: "a/"}, {Name: "a/../../x", Body: "x"}}, `name contains ".."`},
		{"hard link out", []entry{{Name: "x", Link: "../../etc/passwd", Type: tar.TypeLink}}, `name contains ".."`},
		{"hard link to a folder", []entry{{Name: "d/"}, {Name: "x", Link: "d", Type: tar.TypeLink}}, "is a folder"},
		{"hard link to nothing", []entry{{Name: "x", Link: "y", Type: tar.TypeLink}}, `link to "y"`},
		{"hard link to itself", []entry{{Name: "x", Link: "x", Type: tar.TypeLink}}, "itself"},
		{"hard link over its target", []entry{{Name: "d/"}, {Name: "d/f"}, {Name: "d", Link: "d/f", Type: tar.TypeLink}}, "its own target"},
		{"below a file", []entry{{Name: "f", Body: "x"}, {Name: "f/g", Body: "y"}}, "f is not a folder"},
		{"symlinks in a circle", []entry{{Name: "a", Link: "b"}, {Name: "b", Link: "a"}, {Name: "a/f"}}, "too many levels"},
		{"root is a file", []entry{{Name: ".", Body: "x"}}, "root is not a folder"},
		{"whiteout of dot", []entry{{Name: ".wh.."}}, "whiteout of nothing"},
		{"whiteout of dotdot", []entry{{Name: "a/"}, {Name: "a/.wh..."}}, "whiteout of nothing"},
		{"name too long", []entry{{Name: strings.Repeat("n", 300), Body: "x"}}, "file name too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := unpack(t, Options{Lower: &Lower{}}, c.entries...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestUnpackRefusesBrokenStreams(t *testing.T) {
	good := imagetest.Layer{Tar: imagetest.Archive(entry{Name: "f", Body: strings.Repeat("x", 4096)}), Compression: imagetest.Gzip}.Blob()
	for name, data := range map[string][]byte{
		"cut gzip":     good[:len(good)-10],
		"cut tar":      imagetest.Archive(entry{Name: "f", Body: strings.Repeat("x", 4096)})[:1000],
		"not an tar":   bytes.Repeat([]byte("garbage "), 200),
		"xz":           {0xfd, '7', 'z', 'X', 'Z', 0, 1, 2},
		"flipped gzip": append(append([]byte{}, good[:len(good)-6]...), 1, 2, 3, 4, 5, 6),
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := unpackTar(t, Options{}, data); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestUnpackEmpty(t *testing.T) {
	dir, res, err := unpackTar(t, Options{}, nil)
	if err != nil || describe(t, dir) != "" {
		t.Fatal(err)
	}
	const emptyDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if res.DiffID != emptyDigest {
		t.Error(res.DiffID)
	}
}

func TestUnpackAttributes(t *testing.T) {
	when := time.Unix(1234567890, 123456789)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir, res, err := unpack(t, Options{},
		entry{Name: "./", Mode: 0o711, ModTime: when},
		entry{Name: "d/", Mode: 0o1777, ModTime: when},
		entry{Name: "d/f", Body: "x", Mode: 0o4755, ModTime: when, Xattrs: map[string]string{
			"user.note": "hello", "trusted.overlay.opaque": "y", "user.overlay.redirect": "/etc", "security.selinux": "x"}},
		entry{Name: "d/big", Body: strings.Repeat("b", smallFile+1), Mode: 0o640, ModTime: when},
		entry{Name: "d/l", Link: "f", ModTime: when},
		entry{Name: "d/fifo", Type: tar.TypeFifo, Mode: 0o666, ModTime: when},
		entry{Name: "d/locked/", Mode: imagetest.ZeroMode, ModTime: when},
		entry{Name: "d/locked/f", Body: "y", Mode: 0o600, ModTime: when},
	)
	if err != nil {
		t.Fatal(err)
	}
	if res.Root == nil || res.Root.Mode != 0o711 || res.Dependent || len(res.Implicit) > 0 {
		t.Errorf("result %+v", res)
	}
	for name, mode := range map[string]uint32{
		".": 0o711, "d": 0o1777, "d/f": 0o4755, "d/big": 0o640, "d/l": 0o777, "d/fifo": 0o666, "d/locked": 0,
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != mode {
			t.Errorf("%s has mode %o, want %o", name, st.Mode&0o7777, mode)
		}
		if got := time.Unix(st.Mtim.Unix()); !got.Equal(when) {
			t.Errorf("%s was changed at %v, want %v", name, got, when)
		}
	}
	names := make([]byte, 1000)
	n, err := unix.Listxattr(filepath.Join(dir, "d/f"), names)
	if errors.Is(err, unix.ENOTSUP) {
		t.Skip("the file system has no extended attributes")
	}
	if got := strings.ReplaceAll(string(names[:max(n, 0)]), "\x00", " "); strings.TrimSpace(strings.ReplaceAll(got, "security.selinux", "")) != "user.note" {
		t.Errorf("attributes %q, %v", got, err)
	}
	if err := os.Chmod(filepath.Join(dir, "d/locked"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestOpaqueRootIsReported(t *testing.T) {
	_, res, err := unpack(t, Options{}, entry{Name: ".wh..wh..opq"}, entry{Name: "f"})
	if err != nil || !res.OpaqueRoot {
		t.Fatal(res, err)
	}
}

func TestSparse(t *testing.T) {
	const size = 10 << 30
	dir, res, err := unpackTar(t, Options{}, sparseTar(t, size, "head"))
	var space interface{ Error() string }
	if errors.Is(err, unix.ENOSPC) && errors.As(err, &space) {
		t.Skipf("not enough room to claim it here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "s"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != size || st.Blocks*512 > 1<<20 || res.Size != size {
		t.Errorf("size %d in %d blocks, reported %d", st.Size, st.Blocks, res.Size)
	}
}

func TestClaimLargerThanTheDisk(t *testing.T) {
	_, _, err := unpackTar(t, Options{}, sparseTar(t, 1<<55, "head"))
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "32.0 PiB needed") || !strings.Contains(err.Error(), `entry "s"`) {
		t.Error(err)
	}
}

// sparseTar writes a PAX 1.0 sparse file: data, then nothing up to size.
func sparseTar(t *testing.T, size int64, data string) []byte {
	t.Helper()
	head := fmt.Sprintf("2\n0\n%d\n%d\n0\n", len(data), size)
	body := head + strings.Repeat("\x00", 512-len(head)) + data
	records := map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": fmt.Sprint(size),
	}
	// archive/tar does not write sparse files: the header is laid out here.
	var pax strings.Builder
	for _, k := range []string{"GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize"} {
		rec := k + "=" + records[k] + "\n"
		n := len(rec) + 3
		for n != len(fmt.Sprint(n))+1+len(rec) {
			n = len(fmt.Sprint(n)) + 1 + len(rec)
		}
		fmt.Fprintf(&pax, "%d %s", n, rec)
	}
	var buf bytes.Buffer
	block := func(name string, typ byte, content string) {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(content), 0))
		copy(h[148:], "        ")
		h[156] = typ
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		buf.Write(h)
		buf.WriteString(content)
		buf.Write(make([]byte, (512-len(content)%512)%512))
	}
	block("pax", tar.TypeXHeader, pax.String())
	block("GNUSparseFile.0/s", tar.TypeReg, body)
	buf.Write(make([]byte, 1024))
	return buf.Bytes()
}

func TestManyFilesKeepOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	last := map[string]string{}
	var entries []entry
	for i := range 3000 { // many duplicates over more folders than stay open
		name := fmt.Sprintf("d%d/f%d", r.IntN(400), r.IntN(4))
		body := fmt.Sprint(i)
		last[name] = body
		entries = append(entries, entry{Name: name, Body: body})
	}
	dir, res, err := unpack(t, Options{}, entries...)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range last {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != body {
			t.Fatalf("%s: %q, %v; want %q", name, b, err, body)
		}
	}
	if res.Entries != 3000 || len(res.Implicit) == 0 || !slices.Contains(res.Implicit, "d1") {
		t.Error(res.Entries, len(res.Implicit))
	}
}

func TestCancelledUnpackEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	archive := imagetest.Archive(entry{Name: "f", Body: strings.Repeat("x", 4<<20)})
	dir := t.TempDir()
	if _, err := Unpack(ctx, bytes.NewReader(archive), dir, Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
