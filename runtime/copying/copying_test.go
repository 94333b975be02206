package copying

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func rootAt(t *testing.T, dir string) Root {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return Root{Dir: f}
}

func put(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// ours are the options with which anybody can write.
var ours = WriteOptions{Keep: true}

func TestRoundTrip(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	put(t, from+"/d/a", "text of a", 0o640)
	put(t, from+"/d/sub/run", "#!/bin/sh", 0o755)
	put(t, from+"/d/empty", "", 0o400)
	os.Symlink("../../nowhere", from+"/d/link")
	os.Link(from+"/d/a", from+"/d/twin")
	os.Mkdir(from+"/d/bare", 0o711)
	unix.Mkfifo(from+"/d/pipe", 0o600)
	unix.Setxattr(from+"/d/a", "user.note", []byte("x\x00y"), 0)
	old := unix.NsecToTimespec(1e18)
	for _, f := range []string{"/d/a", "/d/bare", "/d/sub"} {
		unix.UtimesNanoAt(unix.AT_FDCWD, from+f, []unix.Timespec{old, old}, 0)
	}
	var archive bytes.Buffer
	var skipped []string
	err := rootAt(t, from).Read(t.Context(), &archive, "/d", ReadOptions{As: "new", Skipped: func(s string) { skipped = append(skipped, s) }})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(skipped, []string{"/d/pipe: a named pipe"}) {
		t.Errorf("skipped %q", skipped)
	}
	if err := rootAt(t, to).Write(t.Context(), &archive, "/", ours); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "text of a", "twin": "text of a", "sub/run": "#!/bin/sh", "empty": ""} {
		if b, err := os.ReadFile(to + "/new/" + name); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if l, _ := os.Readlink(to + "/new/link"); l != "../../nowhere" {
		t.Errorf("link to %q", l)
	}
	for name, mode := range map[string]fs.FileMode{"a": 0o640, "sub/run": 0o755, "empty": 0o400, "bare": 0o711 | fs.ModeDir} {
		if st, err := os.Stat(to + "/new/" + name); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	for _, name := range []string{"a", "bare", "sub"} {
		if st, _ := os.Stat(to + "/new/" + name); st == nil || st.ModTime().UnixNano() != 1e18 {
			t.Errorf("%s: its time is lost", name)
		}
	}
	a, _ := os.Stat(to + "/new/a")
	twin, _ := os.Stat(to + "/new/twin")
	if !os.SameFile(a, twin) {
		t.Error("two names of one file became two files")
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(to+"/new/a", "user.note", value); err == nil && string(value[:n]) != "x\x00y" {
		t.Errorf("attribute %q", value[:n])
	}
}

// entry is a line of a hostile archive.
type entry struct {
	name, link, text string
	typ              byte
}

func pack(t testing.TB, entries ...entry) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.typ, Linkname: e.link, Mode: 0o644, Size: int64(len(e.text))}
		if e.typ != tar.TypeReg {
			h.Size = 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Skip(err)
		}
		io.WriteString(w, e.text[:h.Size])
	}
	w.Close()
	return &b
}

// TestHostileArchives: nothing gets out of the root, wherever links lead.
func TestHostileArchives(t *testing.T) {
	for name, entries := range map[string][]entry{
		"dots":            {{name: "../../../../../../secret", typ: tar.TypeReg, text: "evil"}},
		"absolute":        {{name: "/secret", typ: tar.TypeReg, text: "evil"}},
		"link":            {{name: "l", typ: tar.TypeSymlink, link: "../../../../../.."}, {name: "l/secret", typ: tar.TypeReg, text: "evil"}},
		"absolute link":   {{name: "l", typ: tar.TypeSymlink, link: "OUTSIDE"}, {name: "l/secret", typ: tar.TypeReg, text: "evil"}},
		"link to a file":  {{name: "l", typ: tar.TypeSymlink, link: "OUTSIDE/secret"}, {name: "l", typ: tar.TypeReg, text: "evil"}},
		"proc":            {{name: "l", typ: tar.TypeSymlink, link: "/proc/self/cwd"}, {name: "l/secret", typ: tar.TypeReg, text: "evil"}},
		"hard link":       {{name: "h", typ: tar.TypeLink, link: "OUTSIDE/secret"}, {name: "h", typ: tar.TypeReg, text: "evil"}},
		"hard link dots":  {{name: "h", typ: tar.TypeLink, link: "../outside/secret"}},
		"link, hard link": {{name: "l", typ: tar.TypeSymlink, link: "OUTSIDE"}, {name: "h", typ: tar.TypeLink, link: "l/secret"}},
		"there already":   {{name: "ready/secret", typ: tar.TypeReg, text: "evil"}},
		"device":          {{name: "null", typ: tar.TypeChar}, {name: "p", typ: tar.TypeFifo}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, dir+"/outside/secret", "good", 0o644)
			os.Mkdir(dir+"/root", 0o755)
			os.Symlink(dir+"/outside", dir+"/root/ready")
			for i := range entries {
				entries[i].link = strings.ReplaceAll(entries[i].link, "OUTSIDE", dir+"/outside")
			}
			err := rootAt(t, dir+"/root").Write(t.Context(), pack(t, entries...), "/", ours)
			t.Log(err)
			checkOutside(t, dir)
		})
	}
}

func checkOutside(t *testing.T, dir string) {
	t.Helper()
	if b, _ := os.ReadFile(dir + "/outside/secret"); string(b) != "good" {
		t.Errorf("the secret is %q", b)
	}
	if st, err := os.Stat(dir + "/outside/secret"); err == nil && st != nil {
		var raw unix.Stat_t
		unix.Stat(dir+"/outside/secret", &raw)
		if raw.Nlink != 1 {
			t.Error("the secret has another name now")
		}
	}
	for _, d := range []string{"", "/outside"} {
		left, _ := os.ReadDir(dir + d)
		if want := map[string]int{"": 2, "/outside": 1}[d]; len(left) != want {
			t.Errorf("in %q: %v", d, left)
		}
	}
	filepath.WalkDir(dir+"/root", func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.Type()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0 {
			t.Errorf("%s was made", p)
		}
		return nil
	})
}

func FuzzWrite(f *testing.F) {
	f.Add("a/b", "", "l", "../..", "l/x", byte('0'))
	f.Add("x", "/etc", "x/y", "..", "../outside/secret", byte('1'))
	f.Fuzz(func(t *testing.T, n1, l1, n2, l2, n3 string, typ byte) {
		dir := t.TempDir()
		put(t, dir+"/outside/secret", "good", 0o644)
		os.Mkdir(dir+"/root", 0o755)
		archive := pack(t, entry{name: n1, typ: tar.TypeSymlink, link: l1}, entry{name: n2, typ: tar.TypeSymlink, link: l2},
			entry{name: n3, typ: typ, link: n1, text: "evil"}, entry{name: n2 + "/" + n3, typ: tar.TypeReg, text: "evil"})
		_ = rootAt(t, dir+"/root").Write(t.Context(), archive, "/", ours)
		checkOutside(t, dir)
	})
}

// TestReadStaysInside: a link leads to what it leads to inside.
func TestReadStaysInside(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/secret", "secret", 0o644)
	put(t, dir+"/root/etc/x", "inside", 0o644)
	os.Symlink("/etc", dir+"/root/abs")
	os.Symlink("../../../../.."+dir, dir+"/root/up")
	r := rootAt(t, dir+"/root")
	var b bytes.Buffer
	if err := r.Read(t.Context(), &b, "/abs/x", ReadOptions{As: "x"}); err != nil || !strings.Contains(b.String(), "inside") {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"/up/secret", "../secret", "/abs/../../secret", "/proc/self/root" + dir + "/secret"} {
		if err := r.Read(t.Context(), io.Discard, name, ReadOptions{As: "x", Follow: true}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if i, err := r.Stat("/abs", false); err != nil || i.Link != "/etc" || i.Name != "abs" {
		t.Errorf("%+v, %v", i, err)
	}
	if i, err := r.Stat("/abs", true); err != nil || !i.Mode.IsDir() {
		t.Errorf("%+v, %v", i, err)
	}
}

// TestRace: somebody exchanges a folder for a link while an archive is unpacked, and while it is read.
func TestRace(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/outside/secret", "good", 0o644)
	put(t, dir+"/root/d/secret", "inside", 0o644)
	os.Symlink(dir+"/outside", dir+"/root/l")
	r := rootAt(t, dir+"/root")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			unix.Renameat2(unix.AT_FDCWD, dir+"/root/d", unix.AT_FDCWD, dir+"/root/l", unix.RENAME_EXCHANGE)
		}
	}()
	for range 300 {
		_ = r.Write(t.Context(), pack(t, entry{name: "d/secret", typ: tar.TypeReg, text: "evil"}), "/", ours)
		var b bytes.Buffer
		_ = r.Read(t.Context(), &b, "/", ReadOptions{})
		if strings.Contains(b.String(), "good") {
			t.Fatal("what is outside was read")
		}
	}
	stop()
	<-ended
	if b, _ := os.ReadFile(dir + "/outside/secret"); string(b) != "good" {
		t.Errorf("the secret is %q", b)
	}
}

func TestReplaces(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/f", "a long text", 0o600)
	put(t, dir+"/full/x", "x", 0o600)
	os.Mkdir(dir+"/bare", 0o755)
	os.Symlink("f", dir+"/l")
	os.Symlink("full", dir+"/ld")
	r := rootAt(t, dir)
	err := r.Write(t.Context(), pack(t, entry{name: "f", typ: tar.TypeReg, text: "new"}, entry{name: "bare", typ: tar.TypeReg, text: "new"},
		entry{name: "l", typ: tar.TypeReg, text: "new"}, entry{name: "ld", typ: tar.TypeDir}, entry{name: "ld/y", typ: tar.TypeReg, text: "y"},
		entry{name: "made/deep/z", typ: tar.TypeReg, text: "z"}), "/", ours)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "new", "bare": "new", "l": "new", "full/x": "x", "full/y": "y", "made/deep/z": "z"} {
		if b, err := os.ReadFile(dir + "/" + name); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if err := r.Write(t.Context(), pack(t, entry{name: "full", typ: tar.TypeReg, text: "new"}), "/", ours); err == nil {
		t.Error("a folder that is not empty was replaced by a file")
	}
	if err := r.Write(t.Context(), strings.NewReader("no archive, whatever it is, of any length at all"), "/", ours); err == nil {
		t.Error("no archive")
	}
	if err := r.Write(t.Context(), pack(t), "/f", ours); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("into a file: %v", err)
	}
}

// TestSpecialFilesStay: a copy to /dev/null, by name or within a folder, must not take the device away.
func TestSpecialFilesStay(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range []entry{{name: "pipe", typ: tar.TypeReg, text: "new"}, {name: "pipe", typ: tar.TypeDir}} {
		if err := rootAt(t, dir).Write(t.Context(), pack(t, e), "/", ours); !errors.Is(err, errSpecial) {
			t.Errorf("%c over a pipe: %v", e.typ, err)
		}
		if st, err := os.Lstat(dir + "/pipe"); err != nil || st.Mode().Type() != os.ModeNamedPipe {
			t.Fatalf("the pipe is gone: %v, %v", st, err)
		}
	}
}

// TestShiftedOwners: inside, everything is root's, or the archive's.
func TestShiftedOwners(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("owners can be given by root alone")
	}
	dir := t.TempDir()
	r := rootAt(t, dir)
	r.IDs = &IDs{Host: 200000, Size: 1000}
	os.Chown(dir, 200000, 200000)
	archive := func(uid int) *bytes.Buffer {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: uid, Gid: 7})
		w.WriteHeader(&tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: uid, Gid: 7})
		w.WriteHeader(&tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "f", Uid: uid, Gid: 7})
		w.Close()
		return &b
	}
	for _, c := range []struct {
		o        WriteOptions
		uid, gid uint32
	}{{WriteOptions{}, 200000, 200000}, {WriteOptions{Owners: true}, 200033, 200007}} {
		os.RemoveAll(dir + "/d")
		if err := r.Write(t.Context(), archive(33), "/", c.o); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"d", "d/f", "d/l"} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Uid != c.uid || st.Gid != c.gid {
				t.Errorf("%s: %d:%d, %v", name, st.Uid, st.Gid, err)
			}
		}
		if st, _ := os.Stat(dir + "/d/f"); st.Mode()&fs.ModeSetuid == 0 {
			t.Error("the mode is lost")
		}
	}
	var b bytes.Buffer
	if err := r.Read(t.Context(), &b, "/d/f", ReadOptions{As: "f"}); err != nil {
		t.Fatal(err)
	}
	if h, err := tar.NewReader(&b).Next(); err != nil || h.Uid != 33 || h.Gid != 7 {
		t.Errorf("%+v, %v", h, err)
	}
	if err := r.Write(t.Context(), archive(1000), "/", WriteOptions{Owners: true}); err == nil {
		t.Error("an owner outside the range")
	}
	if os.Getuid() != 0 || unix.Access(dir, unix.W_OK) != nil {
		t.Error("we are somebody else now")
	}
}
