package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
)

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
			eachForm(t, func(t *testing.T, form Form) {
				s := newStore(t)
				// With these below, whiteouts have something to hide.
				lower := s.mustAdd(t, form, nil, entry{Name: "a/"}, entry{Name: "d/"}, entry{Name: "d/e/"})
				key := s.mustAdd(t, form, []string{lower}, c.entries...)
				if got := describe(t, s.mustOpen(t, key)); got != c.want {
					t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
				}
			})
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
		{"below a whiteout", []entry{{Name: ".wh.d/f", Body: "x"}}, "below a whiteout"},
		{"no owner", []entry{{Name: "f", UID: 1<<32 - 1}}, "owner 4294967295: no such id"},
		{"owner beyond", []entry{{Name: "f", GID: 1 << 40}}, "no such id"},
		{"device beyond", []entry{{Name: "c", Type: tar.TypeChar, Major: 1 << 12}}, "no such number"},
		{"minor beyond", []entry{{Name: "c", Type: tar.TypeBlock, Major: 8, Minor: 1 << 20}}, "no such number"},
		{"bad capability", []entry{{Name: "f", Xattrs: map[string]string{capXattr: "\x01\x00\x00\x01abcdefgh"}}}, "attribute security.capability: invalid argument"},
		{"bad ACL", []entry{{Name: "f", Xattrs: map[string]string{aclAccess: "\x02\x00\x00\x00abcd"}}}, "attribute system.posix_acl_access: invalid argument"},
		{"path too long", []entry{{Name: strings.Repeat("d/", 2100) + "f"}}, "file name too long"},
		{"hard link to what comes later", []entry{{Name: "g", Link: "f", Type: tar.TypeLink}, {Name: "f"}}, `link to "f"`},
		{"hard link to a whiteout", []entry{{Name: ".wh.f"}, {Name: "g", Link: "f", Type: tar.TypeLink}}, `link to "f"`},
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
			eachForm(t, func(t *testing.T, form Form) {
				_, err := unpackOnly(t, form, Options{Lower: &Lower{}}, imagetest.Archive(c.entries...))
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			})
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
			eachForm(t, func(t *testing.T, form Form) {
				if _, err := unpackOnly(t, form, Options{}, data); err == nil {
					t.Error("no error")
				}
			})
		})
	}
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
	eachForm(t, func(t *testing.T, form Form) {
		s := newStore(t)
		f := s.mustOpen(t, s.mustAdd(t, form, nil, entries...))
		for name, body := range last {
			if got := content(t, at(t, f, name)); got != body {
				t.Fatalf("%s: %q; want %q", name, got, body)
			}
		}
	})
}

func TestCancelledUnpackEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	archive := imagetest.Archive(entry{Name: "f", Body: strings.Repeat("x", 4<<20)})
	eachForm(t, func(t *testing.T, form Form) {
		st, err := newStore(t).Stage(form)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Unpack(ctx, bytes.NewReader(archive), Options{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := st.Discard(); err != nil {
			t.Error(err)
		}
	})
}
