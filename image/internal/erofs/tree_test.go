package erofs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// source makes a tree and says what a reader should find.
type source struct {
	t    testing.TB
	w    *Writer
	rand *rand.Rand
	file string

	content map[*Inode][]byte
	files   []*Inode // that can get a second name
}

func newSource(t testing.TB, seed uint64, o Options) *source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layer.erofs")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &source{
		t: t, w: NewWriter(f, o), rand: rand.New(rand.NewPCG(seed, 1)), file: path,
		content: map[*Inode][]byte{},
	}
}

func (s *source) finish(root *Inode) *source {
	s.t.Helper()
	before := s.w.Size()
	size, err := s.w.MetadataSize(root)
	if err == nil {
		err = s.w.Finish(root)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	fi, err := os.Stat(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	if fi.Size() != before+size {
		s.t.Errorf("image of %d bytes, said %d + %d", fi.Size(), before, size)
	}
	return s
}

func (s *source) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rand.Uint32())
	}
	return b
}

// put takes content piece by piece, with its zeros as holes.
func (s *source) put(content []byte) Data {
	s.t.Helper()
	if s.rand.IntN(2) == 0 && !hasHole(content) {
		d, err := s.w.File(int64(len(content)), bytes.NewReader(content))
		if err != nil {
			s.t.Fatal(err)
		}
		return d
	}
	err := s.w.Begin(int64(len(content)))
	for off := 0; off < len(content) && err == nil; {
		zero := content[off] == 0
		end := off
		for end < len(content) && (content[end] == 0) == zero {
			end++
		}
		if zero && end-off > 100 {
			err = s.w.Hole(int64(end - off))
		} else {
			_, err = s.w.Write(content[off:end])
		}
		off = end
	}
	d, eerr := s.w.End()
	if err != nil || eerr != nil {
		s.t.Fatal(err, eerr)
	}
	return d
}

func hasHole(b []byte) bool { return bytes.Contains(b, make([]byte, 101)) }

func (s *source) regular(content []byte) *Inode {
	i := s.attributes(unix.S_IFREG)
	i.Data = s.put(content)
	s.content[i] = content
	s.files = append(s.files, i)
	return i
}

func (s *source) attributes(kind uint32) *Inode {
	i := &Inode{
		Mode: kind | uint32(s.rand.IntN(0o10000)), UID: s.rand.Uint32() >> s.rand.IntN(32), GID: uint32(s.rand.IntN(70000)),
		Mtime: s.rand.Int64N(4e9) - 1e9, MtimeNsec: uint32(s.rand.IntN(1e9)),
	}
	if s.rand.IntN(4) > 0 || kind == unix.S_IFLNK {
		return i
	}
	i.Xattrs = map[string]string{}
	for range s.rand.IntN(4) {
		name := []string{"trusted.", "security.", "trusted.overlay."}[s.rand.IntN(3)]
		if kind == unix.S_IFREG || kind == unix.S_IFDIR {
			name = []string{"user.", "trusted.", "security."}[s.rand.IntN(3)]
		}
		i.Xattrs[name+strings.Repeat("n", 1+s.rand.IntN(200))] = string(s.bytes(s.rand.IntN(1 << s.rand.IntN(13))))
	}
	return i
}

func (s *source) name() string {
	alphabet := "!+,-.ab\xff\xc3\x28 \n"
	b := make([]byte, 1+s.rand.IntN(12))
	if s.rand.IntN(10) == 0 {
		b = make([]byte, 255)
	}
	for i := range b {
		b[i] = alphabet[s.rand.IntN(len(alphabet))]
	}
	return string(b)
}

// folder makes a folder with some of everything.
func (s *source) folder(depth int) *Inode {
	dir := s.attributes(unix.S_IFDIR)
	seen := map[string]bool{".": true, "..": true}
	for range s.rand.IntN(12) {
		name := s.name()
		if seen[name] {
			continue
		}
		seen[name] = true
		dir.Children = append(dir.Children, Entry{name, s.node(depth)})
	}
	return dir
}

func (s *source) node(depth int) *Inode {
	switch k := s.rand.IntN(12); {
	case k < 3 && depth > 0:
		return s.folder(depth - 1)
	case k == 3:
		i := s.attributes(unix.S_IFLNK)
		i.Target = strings.Repeat("t", 1+s.rand.IntN(4095>>s.rand.IntN(12)))
		return i
	case k == 4:
		i := s.attributes([]uint32{unix.S_IFCHR, unix.S_IFBLK}[s.rand.IntN(2)])
		i.Rdev = unix.Mkdev(uint32(s.rand.IntN(4096)), uint32(s.rand.IntN(1<<20)))
		return i
	case k == 5:
		return s.attributes(unix.S_IFCHR) // a whiteout
	case k == 6:
		return s.attributes(unix.S_IFIFO)
	case k == 7:
		return s.attributes(unix.S_IFSOCK)
	case k == 8 && len(s.files) > 0:
		return s.files[s.rand.IntN(len(s.files))]
	case k == 9:
		b := s.bytes(s.rand.IntN(1 << s.rand.IntN(20)))
		for range s.rand.IntN(4) {
			if from := s.rand.IntN(len(b) + 1); from < len(b) {
				clear(b[from : from+s.rand.IntN(len(b)-from)])
			}
		}
		return s.regular(b)
	}
	return s.regular(s.bytes(s.rand.IntN(1 << s.rand.IntN(16))))
}

// line is what all readers have to agree on about one path. sum is of the content.
func line(path string, st Stat, target string, xattrs map[string]string, sum uint32) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %o %d:%d %d.%09d", path, st.Mode, st.UID, st.GID, st.Mtime, st.MtimeNsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fmt.Fprintf(&b, " size %d sum %08x links %d", st.Size, sum, st.Nlink)
	case unix.S_IFLNK:
		fmt.Fprintf(&b, " to %q", target)
	case unix.S_IFDIR:
		fmt.Fprintf(&b, " links %d", st.Nlink)
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(&b, " device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	for _, k := range slices.Sorted(mapsKeys(xattrs)) {
		fmt.Fprintf(&b, " %s=%08x", k, superChecksum([]byte(xattrs[k])))
	}
	return b.String()
}

func mapsKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// want is the tree as it was made.
func (s *source) want(root *Inode) []string {
	var out []string
	var visit func(string, *Inode)
	visit = func(path string, i *Inode) {
		st := Stat{Mode: i.Mode, UID: i.UID, GID: i.GID, Mtime: i.Mtime, MtimeNsec: i.MtimeNsec, Rdev: i.Rdev, Nlink: i.nlink}
		b := s.content[i]
		st.Size = int64(len(b))
		out = append(out, line(path, st, i.Target, i.Xattrs, superChecksum(b)))
		for _, e := range i.Children {
			visit(strings.TrimPrefix(path+"/"+e.Name, "/"), e.Inode)
		}
	}
	visit("", root)
	slices.Sort(out)
	return out
}

func compare(t *testing.T, who string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	if slices.Equal(got, want) {
		return
	}
	shown := 0
	for _, l := range got {
		if _, ok := slices.BinarySearch(want, l); !ok && shown < 5 {
			shown++
			t.Errorf("%s has      %s", who, l)
		}
	}
	for _, l := range want {
		if _, ok := slices.BinarySearch(got, l); !ok && shown < 10 {
			shown++
			t.Errorf("%s lacks    %s", who, l)
		}
	}
	t.Fatalf("%s: %d paths, want %d", who, len(got), len(want))
}
