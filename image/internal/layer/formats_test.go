package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

// addRaw makes a layer of a raw archive, for both forms.
func addRaw(t *testing.T, archive []byte, check func(t *testing.T, f files, res Result)) {
	t.Helper()
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		key, res, err := s.add(form, archive)
		if err != nil {
			t.Fatal(err)
		}
		s.mustCheck(t, key)
		check(t, s.mustOpen(t, key), res)
	})
}

// sparseBody is what the sparse files below have: data, a hole, data, a hole.
func sparseBody() string {
	b := bytes.Repeat([]byte{0}, 300<<10)
	copy(b, "head")
	copy(b[256<<10:], "middle")
	return string(b)
}

func TestSparseFormats(t *testing.T) {
	const size, middle = 300 << 10, 256 << 10
	data := "head" + strings.Repeat("\x00", 508) + "middle" + strings.Repeat("\x00", 506)
	archives := map[string]func(*bytes.Buffer){
		"old GNU": func(b *bytes.Buffer) {
			block(b, "s", 'S', data, func(h []byte) {
				copy(h[257:], "ustar  \x00")
				copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00%011o\x00%011o\x00", 0, 512, middle, 512))
				copy(h[483:], fmt.Sprintf("%011o\x00", size))
			})
		},
		"PAX 0.0": func(b *bytes.Buffer) {
			pax(b, "GNU.sparse.size", fmt.Sprint(size), "GNU.sparse.numblocks", "2",
				"GNU.sparse.offset", "0", "GNU.sparse.numbytes", "512", "GNU.sparse.offset", fmt.Sprint(middle), "GNU.sparse.numbytes", "512")
			block(b, "s", tar.TypeReg, data)
		},
		"PAX 0.1": func(b *bytes.Buffer) {
			pax(b, "GNU.sparse.size", fmt.Sprint(size), "GNU.sparse.numblocks", "2", "GNU.sparse.name", "s", "GNU.sparse.map", fmt.Sprintf("0,512,%d,512", middle))
			block(b, "GNUSparseFile.1/s", tar.TypeReg, data)
		},
		"PAX 1.0": func(b *bytes.Buffer) {
			pax(b, "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", fmt.Sprint(size))
			head := fmt.Sprintf("2\n0\n512\n%d\n512\n", middle)
			block(b, "GNUSparseFile.1/s", tar.TypeReg, head+strings.Repeat("\x00", 512-len(head))+data)
		},
	}
	for name, write := range archives {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			write(&b)
			b.Write(make([]byte, 1024))
			addRaw(t, b.Bytes(), func(t *testing.T, f files, res Result) {
				in := at(t, f, "s")
				if content(t, in) != sparseBody() || res.Size != size {
					t.Error("the content is another")
				}
			})
		})
	}
}

// A sparse file takes no place for its holes, and asks for none.
func TestSparseTakesNoPlace(t *testing.T) {
	const size = 1 << 30
	var b bytes.Buffer
	pax(&b, "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", fmt.Sprint(int64(size)))
	head := "1\n0\n512\n"
	block(&b, "GNUSparseFile.1/s", tar.TypeReg, head+strings.Repeat("\x00", 512-len(head))+strings.Repeat("x", 512))
	b.Write(make([]byte, 1024))
	s := newStore(t)
	for _, form := range forms {
		st, err := s.Stage(form)
		if err != nil {
			t.Fatal(err)
		}
		res, err := st.Unpack(context.Background(), bytes.NewReader(b.Bytes()), Options{Room: func(int64) error { return unix.ENOSPC }})
		if err != nil || res.Size != size {
			t.Fatal(form, res, err)
		}
		path := st.dir + "/" + imageName
		if form == Folder {
			path = st.dir + "/" + diffName + "/s"
		}
		var fi unix.Stat_t
		if err := unix.Stat(path, &fi); err != nil || fi.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d blocks, %v", form, fi.Blocks, err)
		}
		if err := st.Discard(); err != nil {
			t.Error(err)
		}
	}
}

func TestClaimLargerThanTheDisk(t *testing.T) {
	for name, typ := range map[string]byte{"plain": tar.TypeReg, "sparse": 'S'} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			block(&b, "s", typ, "", func(h []byte) {
				if typ == 'S' {
					copy(h[257:], "ustar  \x00")
					copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, 0))
					copy(h[483:], "\x80\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00") // base 256: 1 << 55
				} else {
					copy(h[124:], "\x80\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00")
				}
			})
			b.Write(make([]byte, 1024))
			eachForm(t, func(t *testing.T, form Form) {
				_, err := unpackOnly(t, form, Options{}, b.Bytes())
				if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "36.0 PB needed") || !strings.Contains(err.Error(), `entry "s"`) {
					t.Error(err)
				}
			})
		})
	}
}

func TestRoomIsAsked(t *testing.T) {
	full := errors.New("full")
	for name, entries := range map[string][]entry{
		"large": {{Name: "f", Body: strings.Repeat("x", 2<<20)}},
		"small ones": func() (all []entry) {
			body := strings.Repeat("x", 900<<10)
			for i := range 80 {
				all = append(all, entry{Name: fmt.Sprint(i), Body: body})
			}
			return all
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			eachForm(t, func(t *testing.T, form Form) {
				_, err := unpackOnly(t, form, Options{Room: func(int64) error { return full }}, imagetest.Archive(entries...))
				if !errors.Is(err, full) {
					t.Error(err)
				}
			})
		})
	}
}

func TestOldFormats(t *testing.T) {
	long := strings.Repeat("l/", 60) + strings.Repeat("n", 140)
	var b bytes.Buffer
	block(&b, "././@LongLink", 'L', long+"\x00")
	block(&b, long[:99], tar.TypeReg, "long")
	block(&b, "././@LongLink", 'K', "/"+long+"\x00")
	block(&b, "link", tar.TypeSymlink, "")
	block(&b, "v7folder/", 0, "")
	block(&b, "v7file", 0, "v7")
	block(&b, "contiguous", tar.TypeCont, "c")
	block(&b, "label", 'V', "")
	block(&b, "id", tar.TypeReg, "", func(h []byte) { // base 256
		copy(h[108:], "\x80\x00\x00\x00\xee\x6b\x28\x01")
		copy(h[116:], "\x80\x00\x00\x00\x00\x01\x11\x70")
		copy(h[136:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfc\x18")
	})
	pax(&b, "comment", "a global one is of no interest to us")
	block(&b, "\xff\xfe/\x80", tar.TypeReg, "bytes")
	b.Write(make([]byte, 1024))
	block(&b, "second", tar.TypeReg, "what comes after the end is not of the archive")
	b.Write(make([]byte, 10240))
	addRaw(t, b.Bytes(), func(t *testing.T, f files, _ Result) {
		for p, want := range map[string]string{long: "long", "v7file": "v7", "contiguous": "c", "\xff\xfe/\x80": "bytes"} {
			if got := content(t, at(t, f, p)); got != want {
				t.Errorf("%q: %q", p, got)
			}
		}
		if target, err := at(t, f, "link").readlink(); err != nil || target != "/"+long {
			t.Error(target, err)
		}
		if at(t, f, "v7folder").stat().Mode&unix.S_IFMT != unix.S_IFDIR {
			t.Error("a name with a slash at its end is a folder in the oldest format")
		}
		if st := at(t, f, "id").stat(); st.Mtime != -1000 {
			t.Error(st)
		} else if self().privileged() && (st.UID != 4000000001 || st.GID != 70000) {
			t.Error(st.UID, st.GID)
		}
		absent(t, f, "label")
		absent(t, f, "second")
	})
}

func TestEmptyLayers(t *testing.T) {
	for name, archive := range map[string][]byte{"nothing": nil, "the end": make([]byte, 1024), "zeros": make([]byte, 1<<20), "one block": make([]byte, 512)} {
		t.Run(name, func(t *testing.T) {
			addRaw(t, archive, func(t *testing.T, f files, res Result) {
				if describe(t, f) != "" || res.Entries != 0 {
					t.Error(res)
				}
				if name == "nothing" && res.DiffID != "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
					t.Error(res.DiffID)
				}
			})
		})
	}
}

func TestUnknownTypesAreRefused(t *testing.T) {
	for _, typ := range []byte{'D', 'M', 'Z', 's'} {
		var b bytes.Buffer
		block(&b, "x", typ, "")
		b.Write(make([]byte, 1024))
		eachForm(t, func(t *testing.T, form Form) {
			if _, err := unpackOnly(t, form, Options{}, b.Bytes()); err == nil || !strings.Contains(err.Error(), `entry "x": unknown type`) {
				t.Errorf("%c: %v", typ, err)
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	var entries []entry
	for i := range 5000 {
		entries = append(entries, entry{Name: fmt.Sprintf("d%d/f%d", i%50, i)})
	}
	archive := imagetest.Archive(entries...)
	eachForm(t, func(t *testing.T, form Form) {
		if _, err := unpackOnly(t, form, Options{Memory: 1 << 20}, archive); err == nil || !strings.Contains(err.Error(), "too many entries: they take more than 1.0 MB") {
			t.Error(err)
		}
		if _, err := unpackOnly(t, form, Options{Memory: 4 << 20}, archive); err != nil {
			t.Error(err)
		}
	})
}

// The names of a layer must not cost much more than nodeCost, which the bound of
// memory counts on.
func TestTreeIsSmall(t *testing.T) {
	const n = 100000
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	tree := newTree(1 << 30)
	var f *folder
	var err error
	names := 0
	for i := range n {
		if i%40 == 0 {
			if f, err = tree.newFolder(tree.root, fmt.Sprintf("folder%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		name := fmt.Sprintf("file%d", i)
		names += len(name)
		if err := tree.put(f, name, &node{}); err != nil {
			t.Fatal(err)
		}
	}
	each := (int64(heap()-before) - int64(names)) / n
	counted := (1<<30 - tree.left - int64(names)) / n
	runtime.KeepAlive(tree)
	t.Logf("%d bytes an entry beside the name, %d are counted", each, counted)
	if each > counted {
		t.Errorf("an entry takes %d bytes beside its name, and %d are counted", each, counted)
	}
}

func TestAttributes(t *testing.T) {
	when := time.Unix(1234567890, 123456789)
	v2 := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	v3 := "\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00"
	named := acl(1, 7, -1, 2, 5, 1001, 4, 1, -1, 0x10, 7, -1, 0x20, 0, -1)
	archive := imagetest.Archive(
		entry{Name: "./", Mode: 0o711, ModTime: when},
		entry{Name: "d/", Mode: 0o1777, ModTime: when, Xattrs: map[string]string{aclDefault: named}},
		entry{Name: "d/f", Body: "x", Mode: 0o4755, ModTime: when, Xattrs: map[string]string{
			"user.note": "hello", "user.empty": "", "trusted.overlay.opaque": "y", "user.overlay.redirect": "/etc", "security.selinux": "x", "trusted.x": "y"}},
		entry{Name: "d/big", Body: strings.Repeat("b", smallFile+1), Mode: 0o640, ModTime: when},
		entry{Name: "d/v2", Mode: 0o755, Xattrs: map[string]string{capXattr: v2}},
		entry{Name: "d/v3", Mode: 0o755, Xattrs: map[string]string{capXattr: v3}},
		entry{Name: "d/acl", Mode: 0o770, Xattrs: map[string]string{aclAccess: named}},
		entry{Name: "d/plainacl", Mode: 0o640, Xattrs: map[string]string{aclAccess: acl(1, 6, -1, 4, 4, -1, 0x20, 0, -1), aclDefault: named}},
		entry{Name: "d/l", Link: "f", ModTime: when},
		entry{Name: "d/fifo", Type: tar.TypeFifo, Mode: 0o666, ModTime: when, Xattrs: map[string]string{"user.x": "y"}},
		entry{Name: "d/locked/", Mode: imagetest.ZeroMode, ModTime: when},
		entry{Name: "d/locked/f", Body: "y", Mode: imagetest.ZeroMode, ModTime: when},
		entry{Name: "d/past", ModTime: time.Unix(-1<<40, 5)},
		entry{Name: "d/future", ModTime: time.Unix(1<<40, 5)},
		entry{Name: "d/zero", ModTime: time.Unix(0, 0)},
	)
	eachForm(t, func(t *testing.T, form Form) {
		old := unix.Umask(0o077)
		defer unix.Umask(old)
		s := newStore(t)
		key, res, err := s.add(form, archive)
		if err != nil {
			t.Fatal(err)
		}
		if res.Root == nil || res.Root.Mode != 0o711 || res.Dependent {
			t.Errorf("result %+v", res)
		}
		f := s.mustOpen(t, key)
		for name, mode := range map[string]uint32{
			"": 0o711, "d": 0o1777, "d/f": 0o4755, "d/big": 0o640, "d/l": 0o777, "d/fifo": 0o666, "d/locked": 0, "d/acl": 0o770,
		} {
			st := at(t, f, name).stat()
			if st.Mode&0o7777 != mode {
				t.Errorf("%s has mode %o, want %o", name, st.Mode&0o7777, mode)
			}
			if got := time.Unix(st.Mtime, int64(st.MtimeNsec)); !got.Equal(when) && name != "d/acl" {
				t.Errorf("%s was changed at %v, want %v", name, got, when)
			}
		}
		for name, want := range map[string]int64{"d/past": minTime, "d/future": maxTime, "d/zero": 0} {
			if got := at(t, f, name).stat().Mtime; got != want {
				t.Errorf("%s: time %d, want %d", name, got, want)
			}
		}
		wants := map[string]map[string]string{
			"d": {aclDefault: named}, "d/f": {"user.note": "hello", "user.empty": ""}, "d/acl": {aclAccess: named}, "d/plainacl": nil, "d/fifo": nil,
		}
		if self().privileged() || form == EROFS {
			wants["d/v2"], wants["d/v3"] = map[string]string{capXattr: v2}, map[string]string{capXattr: v3}
		}
		for name, want := range wants {
			got, err := at(t, f, name).xattrs()
			if err != nil {
				t.Fatal(err)
			}
			delete(got, "security.selinux")
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: attributes %q, want %q", name, got, want)
			}
		}
		if form == Folder && !self().privileged() {
			// The owner of a folder without permissions cannot look into it, nor delete it.
			if err := os.Chmod(s.Diff(key)+"/d/locked", 0o700); err != nil {
				t.Error(err)
			}
			return
		}
		s.mustCheck(t, key)
	})
}

func TestOneHundredThousandFiles(t *testing.T) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	n := howMany(100_000, 10_000)
	for i := range n {
		_ = tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f%d", i/100, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: 5})
		_, _ = tw.Write([]byte("hello"))
	}
	_ = tw.Close()
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		key, res, err := s.add(form, buf.Bytes())
		if err != nil || res.Entries != n {
			t.Fatal(res, err)
		}
		c, err := s.Check(context.Background(), key, func(p, what string) { t.Error(p, what) })
		if err != nil || c.Files != n || c.Bytes != int64(5*n) {
			t.Error(c, err)
		}
	})
}

func TestDevices(t *testing.T) {
	needRoot(t)
	addRaw(t, imagetest.Archive(
		entry{Name: "null", Type: tar.TypeChar, Major: 1, Minor: 3},
		entry{Name: "large", Type: tar.TypeBlock, Major: 4095, Minor: 1<<20 - 1},
		entry{Name: "zero", Type: tar.TypeBlock},
	), func(t *testing.T, f files, _ Result) {
		for name, want := range map[string]uint64{"null": unix.Mkdev(1, 3), "large": unix.Mkdev(4095, 1<<20-1), "zero": 0} {
			if st := at(t, f, name).stat(); st.Rdev != want {
				t.Errorf("%s: %x, want %x", name, st.Rdev, want)
			}
		}
	})
}
