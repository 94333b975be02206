package runtime_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/copying"
)

func TestJoinContainer(t *testing.T) {
	w := newWorld(t)
	c := w.config("sleep", "1000")
	w.start(c)
	d := w.config("sh", "-c", "ps -o args; ls /target/data; ls -l /proc/self/ns/net /proc/self/ns/pid; echo x > /target/tmp/from-beside; sleep 1000")
	d.Run, d.Container, d.JoinContainer = c.Run, "beside", c.ID()
	w.start(d)
	w.says(d, "pid:[")
	text := w.text(d)
	for _, want := range []string{"sleep 1000", "sub"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
	out, _, err := w.exec(c.ID(), runtime.Process{Args: []string{"sh", "-c", "ls -l /proc/self/ns/net /proc/self/ns/pid; while ! grep x /tmp/from-beside; do sleep 0; done"}})
	if err != nil || !strings.Contains(out, "x\n") {
		t.Errorf("output %q, %v", out, err)
	}
	for line := range strings.Lines(out) {
		if _, ns, ok := strings.Cut(line, "-> "); ok && !strings.Contains(text, ns) {
			t.Errorf("another namespace than %s", ns)
		}
	}
	// It ends with the container whose processes it sees.
	w.rt.Kill(t.Context(), c.ID())
	w.finish(c)
	if exit := w.finish(d); exit.Signal != "SIGKILL" {
		t.Errorf("exit = %+v", exit)
	}
	d.Run = "t.other-run"
	if _, err := w.rt.Start(t.Context(), d); err == nil {
		t.Error("a container that is gone was joined")
	}
}

// read copies a path of a container's root.
func (w *world) read(c runtime.Config, path string) (string, error) {
	w.tb.Helper()
	dir, err := w.rt.Root(w.ctx(), c.ID())
	if err != nil {
		return "", err
	}
	defer dir.Close()
	var b bytes.Buffer
	if err := (copying.Root{Dir: dir}).Read(w.ctx(), &b, path, copying.ReadOptions{As: "x"}); err != nil {
		return "", err
	}
	in := tar.NewReader(&b)
	if _, err := in.Next(); err != nil {
		return "", err
	}
	text, err := io.ReadAll(in)
	return string(text), err
}

func TestRoot(t *testing.T) {
	w := newWorld(t)
	volume := filepath.Join(w.root, "volume")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	os.Symlink("/etc/passwd", volume+"/link")
	c := w.config("sh", "-c", "echo one > /tmp/file; echo two > /vol/file; echo ready; read x; exit 3")
	c.Stdin = true
	c.Spec.Mounts = append(c.Spec.Mounts, bind(volume, "/vol"))
	w.start(c)
	w.says(c, "ready")
	for path, want := range map[string]string{"/tmp/file": "one\n", "/vol/file": "two\n", "/data/a": "content of a\n"} {
		if got, err := w.read(c, path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	send(t, w.attach(c), "\n")
	if _, err := w.rt.Wait(w.ctx(), c.ID()); err != nil {
		t.Fatal(err)
	}
	if got, err := w.read(c, "/tmp/file"); err != nil || got != "one\n" {
		t.Errorf("ended: %q, %v", got, err)
	}
	if _, err := w.read(c, "/vol/file"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a volume of an ended container: %v", err)
	}
	dir, err := w.rt.Root(w.ctx(), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	archive := tar.NewWriter(&b)
	archive.WriteHeader(&tar.Header{Name: "new", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4})
	io.WriteString(archive, "four")
	archive.Close()
	if err := (copying.Root{Dir: dir}).Write(w.ctx(), &b, "/etc", copying.WriteOptions{}); err != nil {
		t.Error(err)
	}
	dir.Close()
	if got, err := w.read(c, "/etc/new"); err != nil || got != "four" {
		t.Errorf("written after its end: %q, %v", got, err)
	}
	w.finish(c)
	if _, err := w.rt.Root(w.ctx(), c.ID()); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
}
