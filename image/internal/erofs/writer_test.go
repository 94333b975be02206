package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func folderOf(entries ...Entry) *Inode {
	return &Inode{Mode: unix.S_IFDIR | 0o755, Children: entries}
}

// TestLimits are the sizes at which the layout changes.
func TestLimits(t *testing.T) {
	s := newSource(t, 1, Options{})
	root := folderOf()
	add := func(name string, i *Inode) { root.Children = append(root.Children, Entry{name, i}) }
	for _, n := range []int{0, 1, inlineMax, inlineMax + 1, blockSize - 1, blockSize, blockSize + 1, bufferSize - blockSize, bufferSize, 3*bufferSize + 5} {
		add(fmt.Sprintf("file%d", n), s.regular(s.bytes(n)))
	}
	for _, n := range []int{1, 59, 60, 61, blockSize - inodeSize - 1, blockSize - inodeSize, blockSize - inodeSize + 1, maxTarget} {
		i := s.attributes(unix.S_IFLNK)
		i.Target = strings.Repeat("x", n)
		add(fmt.Sprintf("link%d", n), i)
	}
	// Folders around the size of a block: entries of 12 + 84 bytes, "." and ".." take 27.
	for n := 38; n <= 46; n++ {
		dir := s.attributes(unix.S_IFDIR)
		for k := range n {
			dir.Children = append(dir.Children, Entry{fmt.Sprintf("%084d", k), s.attributes(unix.S_IFIFO)})
		}
		add(fmt.Sprintf("dir%d", n), dir)
	}
	for _, n := range []int{3900, blockSize, 20000, maxValue} {
		i := s.regular(s.bytes(100))
		i.Xattrs = map[string]string{"user.large": string(s.bytes(n)), "trusted.overlay.opaque": "y"}
		add(fmt.Sprintf("xattr%d", n), i)
		dir := folderOf(Entry{"in it", s.regular(nil)})
		dir.Xattrs = map[string]string{"trusted.large": string(s.bytes(n))}
		add(fmt.Sprintf("xattrdir%d", n), dir)
	}
	agree(t, s.finish(root), root)
}

func TestManyInOneFolder(t *testing.T) {
	s := newSource(t, 2, Options{})
	root := folderOf()
	one := s.regular([]byte("x"))
	for k := range 100_000 {
		i := &Inode{Mode: unix.S_IFREG | 0o644}
		if k%1000 == 0 {
			i = one
		}
		root.Children = append(root.Children, Entry{fmt.Sprintf("n%d", k*7919%100_000), i})
	}
	s.finish(root)
	if one.nlink != 100 {
		t.Error("links:", one.nlink)
	}
	f, img := open(t, s.file)
	defer f.Close()
	for _, name := range []string{"n0", "n50000", "n99999", "n12345"} {
		if _, err := img.Lookup(name); err != nil {
			t.Error(name, err)
		}
	}
	if _, err := img.Lookup("n100000"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	fsck(t, s.file)
}

// TestHoles: what is a hole takes no place, however large, and reads as zeros.
func TestHoles(t *testing.T) {
	const size = 1 << 40
	s := newSource(t, 3, Options{})
	if err := s.w.Begin(size); err != nil {
		t.Fatal(err)
	}
	at := func(off int64, text string) {
		t.Helper()
		if err := s.w.Hole(off - s.w.cur.off); err != nil {
			t.Fatal(err)
		}
		if _, err := s.w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	at(5, "early")
	at(1<<39+12345, "middle")
	at(size-4, "last")
	d, err := s.w.End()
	if err != nil {
		t.Fatal(err)
	}
	s.finish(folderOf(Entry{"sparse", &Inode{Mode: unix.S_IFREG | 0o644, Data: d}}))
	var st unix.Stat_t
	if err := unix.Stat(s.file, &st); err != nil || st.Blocks*512 > 2<<20 {
		t.Errorf("takes %d bytes, %v", st.Blocks*512, err)
	}
	f, img := open(t, s.file)
	defer f.Close()
	readers := map[string]io.ReaderAt{}
	n, err := img.Lookup("sparse")
	if err != nil || n.Size != size {
		t.Fatal(n, err)
	}
	readers["ours"] = n
	if os.Geteuid() == 0 {
		k, err := os.Open(kernelMount(t, s.file) + "/sparse")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		readers["kernel"] = k
		if off, err := unix.Seek(int(k.Fd()), 1<<38, unix.SEEK_DATA); err != nil || off <= 1<<38 || off > 1<<39+12345 {
			t.Error("data after the first hole:", off, err)
		}
		k.Seek(0, io.SeekStart)
		defer k.Close()
	}
	for who, r := range readers {
		for off, want := range map[int64]string{0: "\x00\x00\x00\x00\x00early\x00", 1<<39 + 12344: "\x00middle\x00", 1 << 38: "\x00\x00", size - 5: "\x00last"} {
			b := make([]byte, len(want))
			if _, err := r.ReadAt(b, off); (err != nil && err != io.EOF) || string(b) != want {
				t.Errorf("%s at %d: %q %v", who, off, b, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	file := func() *Inode { return &Inode{Mode: unix.S_IFREG} }
	shared := folderOf()
	for name, root := range map[string]*Inode{
		"root is a file":   file(),
		"name with slash":  folderOf(Entry{"a/b", file()}),
		"dots":             folderOf(Entry{"..", file()}),
		"empty name":       folderOf(Entry{"", file()}),
		"long name":        folderOf(Entry{strings.Repeat("x", 256), file()}),
		"twice":            folderOf(Entry{"a", file()}, Entry{"a", file()}),
		"linked folder":    folderOf(Entry{"a", shared}, Entry{"b", shared}),
		"long target":      folderOf(Entry{"a", &Inode{Mode: unix.S_IFLNK, Target: strings.Repeat("x", 4096)}}),
		"no type":          folderOf(Entry{"a", &Inode{}}),
		"foreign xattr":    folderOf(Entry{"a", &Inode{Mode: unix.S_IFREG, Xattrs: map[string]string{"system.nfs4_acl": ""}}}),
		"xattr too large":  folderOf(Entry{"a", &Inode{Mode: unix.S_IFREG, Xattrs: map[string]string{"user.x": strings.Repeat("x", 1<<16)}}}),
		"bad nanoseconds":  folderOf(Entry{"a", &Inode{Mode: unix.S_IFREG, MtimeNsec: 1e9}}),
		"all xattrs large": folderOf(Entry{"a", &Inode{Mode: unix.S_IFREG, Xattrs: largeXattrs()}}),
	} {
		s := newSource(t, 4, Options{})
		if err := s.w.Finish(root); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Open(bytes.NewReader(make([]byte, 1<<20)), 1<<20); !errors.Is(err, ErrDamaged) {
			t.Error("zeros are an image:", err)
		}
	}
	s := newSource(t, 5, Options{})
	if _, err := s.w.File(1<<20, strings.NewReader("short")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("short content:", err)
	}
}

func largeXattrs() map[string]string {
	m := map[string]string{}
	for i := range 5 {
		m[fmt.Sprintf("user.%d", i)] = strings.Repeat("x", 60000)
	}
	return m
}

func TestSameBytes(t *testing.T) {
	var images [2][]byte
	for i := range images {
		s := newSource(t, 6, Options{Name: "x"})
		s.finish(s.folder(3))
		var err error
		if images[i], err = os.ReadFile(s.file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("the same tree gave two images")
	}
}

// FuzzReader changes bytes of an image and reads all of it: errors, but neither
// panics nor endless reading.
func FuzzReader(f *testing.F) {
	s := newSource(f, 7, Options{})
	s.finish(s.folder(2))
	image, err := os.ReadFile(s.file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(1024), []byte{1, 2, 3})
	f.Add(uint32(len(image)-blockSize), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, with []byte) {
		b := bytes.Clone(image)
		copy(b[int(at)%len(b):], with)
		le.PutUint32(b[superOffset+4:], 0)
		le.PutUint32(b[superOffset+4:], superChecksum(b[superOffset:blockSize]))
		img, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		_ = img.Walk(func(path string, n *Node) error {
			n.Xattrs()
			n.Readlink()
			if _, err := img.Lookup(path); err != nil {
				return err
			}
			if r, err := n.Open(); err == nil {
				io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			}
			return nil
		})
	})
}
