package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// tree makes files below a new folder; a text that begins with "-> " is a
// symbolic link.
func tree(t *testing.T, files map[string]string) *os.File {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestLookupUser(t *testing.T) {
	root := tree(t, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n",
		"etc/group":  "root:x:0:\nweb:x:1001:\nextra:x:1002:web,other\n",
	})
	tests := []struct {
		want string
		id   identity
	}{
		{"", identity{0, 0, []int{0}, "/root"}},
		{"web", identity{1000, 1001, []int{1001, 1002}, "/home/web"}},
		{"1000", identity{1000, 1001, []int{1001, 1002}, "/home/web"}},
		{"web:extra", identity{1000, 1002, []int{1002}, "/home/web"}},
		{"4242", identity{4242, 0, []int{0}, "/"}},
		{"4242:4243", identity{4242, 4243, []int{4243}, "/"}},
	}
	for _, tt := range tests {
		id, err := lookupUser(root, tt.want)
		if err != nil || fmt.Sprint(id) != fmt.Sprint(tt.id) {
			t.Errorf("%q: %+v, %v, want %+v", tt.want, id, err, tt.id)
		}
	}
	for _, bad := range []string{"nobody-here", "web:nothing"} {
		if id, err := lookupUser(root, bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %+v, %v", bad, id, err)
		}
	}
	if id, err := lookupUser(tree(t, nil), "7:8"); err != nil || id.uid != 7 || id.gid != 8 {
		t.Errorf("an image without account files: %+v, %v", id, err)
	}
}

// TestAccountFileStaysInside: links of an image are followed as if it were the
// root, and what is no file is not read.
func TestAccountFileStaysInside(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := tree(t, map[string]string{
		"real": "inside", "absolute": "-> /real", "dots": "-> ../../../../real",
		"out": "-> " + outside, "out2": "-> ../../../../../.." + outside, "magic": "-> /proc/self/root" + outside, "loop": "-> loop",
	})
	for name, want := range map[string]string{"absolute": "inside", "dots": "inside", "out": "", "out2": "", "magic": ""} {
		if got, err := accountFile(root, name); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root.Name(), "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pipe", ".", "loop"} {
		if got, err := accountFile(root, name); err == nil {
			t.Errorf("%s: %q, no error", name, got)
		}
	}
}

func TestPopulate(t *testing.T) {
	root := tree(t, map[string]string{
		"data/a": "text of a", "data/sub/b": "text of b", "data/link": "-> ../../../etc/passwd", "data/second": "x",
	})
	src := filepath.Join(root.Name(), "data")
	for _, step := range []error{
		os.Link(filepath.Join(src, "a"), filepath.Join(src, "sub/hard")),
		os.Chmod(filepath.Join(src, "a"), 0o2751|os.ModeSetgid),
		os.Chmod(filepath.Join(src, "sub"), 0o711),
		os.Chtimes(filepath.Join(src, "second"), time.Unix(1, 0), time.Unix(2, 0)),
		unix.Mkfifo(filepath.Join(src, "fifo"), 0o600),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	into := t.TempDir()
	if err := populate(root, runtime.Populate{Path: "/data", Into: into}, nil); err != nil {
		t.Fatal(err)
	}
	a, hard := stat(t, into+"/a"), stat(t, into+"/sub/hard")
	if a.Ino != hard.Ino || a.Mode != stat(t, src+"/a").Mode {
		t.Errorf("a is %o, %d; its other name is %d", a.Mode, a.Ino, hard.Ino)
	}
	if st := stat(t, into+"/sub"); st.Mode&0o7777 != 0o711 {
		t.Errorf("mode of a folder = %o", st.Mode)
	}
	if st := stat(t, into+"/second"); st.Mtim.Sec != 2 {
		t.Errorf("time = %d", st.Mtim.Sec)
	}
	if st := stat(t, into+"/fifo"); st.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Errorf("mode of the pipe = %o", st.Mode)
	}
	if link, _ := os.Readlink(into + "/link"); link != "../../../etc/passwd" {
		t.Errorf("link = %q", link)
	}
	if b, _ := os.ReadFile(into + "/sub/b"); string(b) != "text of b" {
		t.Errorf("b = %q", b)
	}
	if _, err := os.Lstat(into + ".populating"); err == nil {
		t.Error("the marker is left")
	}
}

func stat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

// TestPopulateOnce: a volume with content keeps it, unless the content is what
// an interrupted copy left.
func TestPopulateOnce(t *testing.T) {
	root := tree(t, map[string]string{"data/a": "from the image"})
	into := filepath.Join(t.TempDir(), "volume")
	if err := os.Mkdir(into, 0o755); err != nil {
		t.Fatal(err)
	}
	p := runtime.Populate{Path: "/data", Into: into}
	read := func() string { b, _ := os.ReadFile(into + "/a"); return string(b) }
	if err := os.WriteFile(into+"/a", []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := populate(root, p, nil); err != nil || read() != "half" {
		t.Errorf("%q, %v: a volume with content was changed", read(), err)
	}
	if err := os.WriteFile(into+".populating", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := populate(root, p, nil); err != nil || read() != "from the image" {
		t.Errorf("%q, %v: an interrupted copy was not done again", read(), err)
	}
	if err := populate(root, runtime.Populate{Path: "/absent", Into: into}, nil); err != nil {
		t.Errorf("an image without the folder: %v", err)
	}
}

// TestPump: what goes through the pipes is in the log, whole and in order,
// however fast it comes, and the pump's end loses nothing.
func TestPump(t *testing.T) {
	l := bundle.Layout{RunDir: t.TempDir()}
	if err := os.MkdirAll(l.Containers(), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.log")
	log, err := openLog(runtime.LogConfig{Path: path, MaxSize: 64 << 20, MaxFile: 1}, "web.1-aaaa", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := makePipes(l, "id"); err != nil {
		t.Fatal(err)
	}
	p, err := startPump(l, "id", log, runtime.LogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := openPipe(l.Pipe("id", "stdout"), 0)
	if err != nil {
		t.Fatal(err)
	}
	const lines = 100_000
	for i := range lines {
		fmt.Fprintf(w, "%d\n", i)
	}
	fmt.Fprint(w, "the end")
	p.stop()
	w.Close()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	next, last := 0, ""
	for line := range strings.Lines(string(raw)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 {
			t.Fatalf("line %q", line)
		}
		last += f[3]
		if f[2] != "F" {
			continue
		}
		if last != fmt.Sprint(next) {
			t.Fatalf("got %q, want %d", last, next)
		}
		next, last = next+1, ""
	}
	if next != lines || last != "the end" {
		t.Errorf("%d lines and %q", next, last)
	}
}

// TestRealUser guards against the account files of this host being read.
func TestRealUser(t *testing.T) {
	u, err := user.Current()
	if err != nil || u.Username == "root" {
		t.Skip("needs a user that only the host has")
	}
	if _, err := lookupUser(tree(t, nil), u.Username); err == nil {
		t.Error("a user of the host was found in an image")
	}
}

func TestDropHome(t *testing.T) {
	if got := dropHome([]string{"A=b", "HOME=/x", "HOMEX=y"}); !slices.Equal(got, []string{"A=b", "HOMEX=y"}) {
		t.Error(got)
	}
}

// BenchmarkPump is the way from the pipe to the log file.
func BenchmarkPump(b *testing.B) {
	l := bundle.Layout{RunDir: b.TempDir()}
	if err := os.MkdirAll(l.Containers(), 0o700); err != nil {
		b.Fatal(err)
	}
	log, err := openLog(runtime.LogConfig{Path: filepath.Join(b.TempDir(), "x.log")}, "web.1-aaaa", slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	if err := makePipes(l, "id"); err != nil {
		b.Fatal(err)
	}
	p, err := startPump(l, "id", log, runtime.LogConfig{})
	if err != nil {
		b.Fatal(err)
	}
	w, err := openPipe(l.Pipe("id", "stdout"), 0)
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	text := []byte(strings.Repeat("a line of output as services write them, of some eighty characters in all\n", 200))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := w.Write(text); err != nil {
			b.Fatal(err)
		}
	}
	p.stop()
}

// TestPumpStops: a pipe that somebody else never stops writing to ends with its container.
func TestPumpStops(t *testing.T) {
	l := bundle.Layout{RunDir: t.TempDir()}
	if err := os.MkdirAll(l.Containers(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := makePipes(l, "id"); err != nil {
		t.Fatal(err)
	}
	p, err := startPump(l, "id", nil, runtime.LogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	writers := make([]*os.File, 4)
	for i := range writers {
		if writers[i], err = openPipe(l.Pipe("id", "stdout"), unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		defer writers[i].Close()
		go func() {
			for b := make([]byte, 4096); ; {
				if _, err := writers[i].Write(b); err != nil {
					return
				}
			}
		}()
	}
	stopped := make(chan struct{})
	go func() {
		p.stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(3 * time.Minute):
		t.Error("a writer keeps the pump from its end")
	}
}

// TestPopulateLink: what a container puts into a shared volume meanwhile leads nowhere.
func TestPopulateLink(t *testing.T) {
	outside, top := t.TempDir(), t.TempDir()
	for _, step := range []error{
		os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600),
		os.Symlink(outside, filepath.Join(top, "sub")),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	dir, err := os.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c := copier{top: dir}
	if err := c.link("sub/secret", dir, "stolen"); err == nil {
		t.Error("a file outside of the volume was linked into it")
	}
}

func TestPopulateDepth(t *testing.T) {
	deep := "data/" + strings.Repeat("d/", maxDepth+2) + "file"
	root := tree(t, map[string]string{deep: "text"})
	if err := populate(root, runtime.Populate{Path: "/data", Into: t.TempDir()}, nil); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a tree of any depth: %v", err)
	}
}
