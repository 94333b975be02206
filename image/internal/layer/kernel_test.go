package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners, devices and overlay mounts")
	}
}

// inventory is everything about a tree that unpacking decides.
func inventory(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		s := fmt.Sprintf("mode %o owner %d:%d time %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" links %d size %d content %x", st.Nlink, st.Size, b[:min(len(b), 64)])
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			s += " to " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			s += fmt.Sprintf(" dev %x", st.Rdev)
		}
		if st.Nlink > 1 && !d.IsDir() {
			if first, ok := inodes[st.Ino]; ok {
				s += " same as " + first
			}
			inodes[st.Ino] = rel
		}
		names := make([]byte, 4096)
		n, _ := unix.Llistxattr(p, names)
		for _, name := range slices.Sorted(strings.SplitSeq(string(names[:max(n, 0)]), "\x00")) {
			if name != "" {
				v := make([]byte, 4096)
				n, _ := unix.Lgetxattr(p, name, v)
				s += fmt.Sprintf(" %s=%x", name, v[:max(n, 0)])
			}
		}
		all[rel] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestLikeTar compares with what tar makes of the same archive.
func TestLikeTar(t *testing.T) {
	needRoot(t)
	tarBin, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar here")
	}
	when := time.Unix(1500000000, 987654321)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	archive := imagetest.Archive(
		entry{Name: "./", Mode: 0o751, ModTime: when},
		entry{Name: "bin/", Mode: 0o755, UID: 3, GID: 4, ModTime: when},
		entry{Name: "bin/ping", Body: "ping", Mode: 0o755, ModTime: when, Xattrs: map[string]string{"security.capability": capability}},
		entry{Name: "bin/su", Body: "su", Mode: 0o4755, UID: 5, GID: 6, ModTime: when},
		entry{Name: "bin/wall", Body: "wall", Mode: 0o2755, GID: 5, ModTime: when},
		entry{Name: "bin/su2", Link: "./bin/su", Type: tar.TypeLink},
		entry{Name: "tmp/", Mode: 0o1777, ModTime: when},
		entry{Name: "big", Body: strings.Repeat("big!", 100000), Mode: 0o600, UID: 70000, GID: 70001, ModTime: when},
		entry{Name: "ro", Body: "ro", Mode: 0o444, UID: 1, ModTime: when, Xattrs: map[string]string{"user.k": "v"}},
		entry{Name: "none/", Mode: imagetest.ZeroMode, UID: 9, ModTime: when},
		entry{Name: "none/f", Body: "x", Mode: imagetest.ZeroMode, ModTime: when},
		entry{Name: "l", Link: "/etc/passwd", UID: 7, GID: 8, ModTime: when},
		entry{Name: "null", Type: tar.TypeChar, Major: 1, Minor: 3, Mode: 0o666, ModTime: when},
		entry{Name: "disk", Type: tar.TypeBlock, Major: 259, Minor: 300, Mode: 0o660, GID: 6, ModTime: when},
		entry{Name: "fifo", Type: tar.TypeFifo, Mode: 0o622, UID: 2, ModTime: when},
		entry{Name: "dup", Body: "old", ModTime: when},
		entry{Name: "dup", Body: "new", Mode: 0o640, ModTime: when},
		entry{Name: strings.Repeat("d/", 100) + strings.Repeat("n", 150), Body: "deep", ModTime: when},
		entry{Name: "ümläut", Body: "x", ModTime: when},
		entry{Name: "before-1970", Body: "x", ModTime: time.Unix(-1000, 0)},
	)
	ours, res, err := unpackTar(t, Options{}, archive)
	if err != nil {
		t.Fatal(err)
	}
	theirs := t.TempDir()
	cmd := exec.Command(tarBin, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", "-", "-C", theirs)
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("this tar cannot do it: %v: %s", err, out)
	}
	got, want := inventory(t, ours), inventory(t, theirs)
	for _, p := range res.Implicit { // tar gives them the time of day
		delete(got, p)
		delete(want, p)
	}
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if got[p] != want[p] {
			t.Errorf("%s\n got %s\nwant %s", p, got[p], want[p])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d names, want %d", len(got), len(want))
	}
}

// model is what images mean: layers applied one after the other to one tree.
type model map[string]string // path to content, folders end in "/"

func (m model) removeTree(p string) {
	for q := range m {
		if q == p || q == p+"/" || strings.HasPrefix(q, p+"/") {
			delete(m, q)
		}
	}
}

func (m model) apply(layer []entry) {
	for _, e := range layer { // whiteouts act on what lies below, wherever they stand
		dir, base := path.Split(e.Name)
		switch {
		case base == whiteoutOpaque:
			for q := range m {
				if strings.HasPrefix(q, dir) && q != dir {
					delete(m, q)
				}
			}
		case strings.HasPrefix(base, whiteoutPrefix):
			m.removeTree(dir + strings.TrimPrefix(base, whiteoutPrefix))
		}
	}
	for _, e := range layer {
		name := strings.TrimSuffix(e.Name, "/")
		switch {
		case strings.HasPrefix(path.Base(name), whiteoutPrefix):
		case name != e.Name:
			delete(m, name)
			m[e.Name] = ""
		default:
			m.removeTree(name)
			m[name] = e.Body
		}
	}
}

// randomLayer names parents before children and each name once, as build tools do.
func randomLayer(r *rand.Rand, n int) []entry {
	names := map[string]entry{}
	var out []entry
	var fill func(dir string, depth int)
	fill = func(dir string, depth int) {
		for i := range 4 {
			name := dir + string(rune('a'+i))
			switch k := r.IntN(12); {
			case k < 3 && depth < 3:
				names[name] = entry{Name: name + "/"}
				out = append(out, names[name])
				fill(name+"/", depth+1)
			case k < 5:
				out = append(out, entry{Name: name, Body: fmt.Sprint("layer ", n, r.IntN(1000))})
			case k < 7:
				out = append(out, entry{Name: dir + whiteoutPrefix + string(rune('a'+i))})
			case k == 7:
				out = append(out, entry{Name: dir + whiteoutPrefix + string(rune('a'+i))})
				out = append(out, entry{Name: name, Body: fmt.Sprint("anew ", n)})
			case k == 8 && dir != "":
				out = append(out, entry{Name: dir + whiteoutOpaque})
			}
		}
	}
	fill("", 0)
	return out
}

// TestOverlayLikeModel lays random layers over each other with the kernel's
// overlayfs and compares with the layers applied one after the other.
func TestOverlayLikeModel(t *testing.T) {
	needRoot(t)
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		want := model{}
		var dirs []string
		var texts []string
		for n := range 4 {
			layer := randomLayer(r, n)
			want.apply(layer)
			dir, res, err := unpack(t, Options{}, layer...)
			if err != nil || res.NeedsLower {
				t.Fatal(err)
			}
			dirs = append([]string{dir}, dirs...)
			texts = append(texts, fmt.Sprint(layer))
		}
		got := model{}
		merged := mountOverlay(t, dirs)
		err := filepath.WalkDir(merged, func(p string, d fs.DirEntry, err error) error {
			if err != nil || p == merged {
				return err
			}
			rel, _ := filepath.Rel(merged, p)
			if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
				return nil // the kernel lists, but does not find, a whiteout of what never was
			}
			if d.IsDir() {
				got[rel+"/"] = ""
				return nil
			}
			b, err := os.ReadFile(p)
			got[rel] = string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, want) {
			t.Errorf("seed %d\n got %v\nwant %v\nlayers %s", seed, got, want, strings.Join(texts, "\n"))
		}
	}
}

func mountOverlay(t *testing.T, dirs []string) string {
	t.Helper()
	merged := t.TempDir()
	err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(dirs, ":"))
	if err != nil {
		t.Skipf("overlay cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return merged
}
