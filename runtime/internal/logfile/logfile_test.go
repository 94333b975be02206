package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 3, 4, 5, 6, 7_000, time.UTC)

const h0 = "2026-11-03T04:05:06.000007000Z "

func open(t testing.TB, path string, size int64, files int) *Writer {
	t.Helper()
	w, err := Open(path, size, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func write(t testing.TB, w *Writer, stream, text string) {
	t.Helper()
	if err := w.Write(stream, t0, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRecords(t *testing.T) {
	long := strings.Repeat("x", maxText)
	for _, c := range []struct {
		name   string
		pieces []string
		want   string
	}{
		{"one line", []string{"hello\n"}, h0 + "stdout F hello\n"},
		{"two lines and a rest", []string{"a\nb\nc"}, h0 + "stdout F a\n" + h0 + "stdout F b\n" + h0 + "stdout P c\n"},
		{"a rest that goes on", []string{"a", "b\n"}, h0 + "stdout P a\n" + h0 + "stdout F b\n"},
		{"a rest that ends", []string{"a", "\n"}, h0 + "stdout P a\n" + h0 + "stdout F \n"},
		{"empty lines", []string{"\n\n"}, h0 + "stdout F \n" + h0 + "stdout F \n"},
		{"any byte", []string{"\x00\r\xff\x1b \n"}, h0 + "stdout F \x00\r\xff\x1b \n"},
		{"longest line", []string{long + "\n"}, h0 + "stdout F " + long + "\n"},
		{"longer line", []string{long + "y\n"}, h0 + "stdout P " + long + "\n" + h0 + "stdout F y\n"},
		{"nothing", []string{""}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app.log")
			w := open(t, path, 0, 0)
			write(t, w, Stdout, "first\n")
			for _, p := range c.pieces {
				write(t, w, Stdout, p)
			}
			if got := content(t, path); got != h0+"stdout F first\n"+c.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestStamp(t *testing.T) {
	var s stamp
	for _, at := range []time.Time{
		t0, t0.Add(1), t0.Add(time.Second - 1), t0.Add(-time.Hour),
		t0.In(time.FixedZone("", 3600)), time.Unix(0, 999_999_999), time.Unix(-1, 5),
	} {
		s.set(at)
		if got, want := string(s.text[:]), at.UTC().Format("2006-01-02T15:04:05.000000000Z"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestUnknownStream(t *testing.T) {
	w := open(t, filepath.Join(t.TempDir(), "app.log"), 0, 0)
	if err := w.Write("stdin", t0, []byte("x")); err == nil {
		t.Error("no error")
	}
}

// names lists the folder without the link.
func names(t testing.TB, path string) []string {
	t.Helper()
	segs, err := list(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range segs {
		out = append(out, s.name)
	}
	return out
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 200, 3)
	if err := w.StartRun("web.1-aaaa", t0); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		write(t, w, Stdout, fmt.Sprintf("line %02d\n", i)) // 48 bytes: 4 in a segment
	}
	want := "[app.log.000008.web.1-aaaa app.log.000009.web.1-aaaa app.log.000010.web.1-aaaa]"
	if got := fmt.Sprint(names(t, path)); got != want {
		t.Errorf("got %s", got)
	}
	if got := content(t, path); !strings.HasSuffix(got, "line 39\n") || len(got) > 200 {
		t.Errorf("the current segment is %q", got)
	}
	// One piece of many lines is split as well.
	write(t, w, Stderr, strings.Repeat("0123456\n", 9))
	for _, n := range names(t, path) {
		if b := content(t, filepath.Join(filepath.Dir(path), n)); len(b) > 200 || !strings.HasSuffix(b, "\n") {
			t.Errorf("%s has %d bytes", n, len(b))
		}
	}
}

func TestRecordLargerThanSegment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 50, 2)
	write(t, w, Stdout, strings.Repeat("x", 100)+"\n")
	write(t, w, Stdout, "y\n")
	if got := content(t, path); got != h0+"stdout F y\n" {
		t.Errorf("got %q", got)
	}
}

func TestRunsHaveSegments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	for _, run := range []string{"r1", "r1", "r2", "silent", "r3"} {
		w := open(t, path, 0, 0)
		if err := w.StartRun(run, t0); err != nil {
			t.Fatal(err)
		}
		if run != "silent" {
			write(t, w, Stdout, "from "+run+"\n")
		}
		w.Close()
	}
	if got := fmt.Sprint(names(t, path)); got != "[app.log.000001.r1 app.log.000002.r2 app.log.000003.r3]" {
		t.Errorf("got %s", got)
	}
	w := open(t, path, 0, 0)
	for _, bad := range []string{"", "a/b", "a\nb", strings.Repeat("x", 250)} {
		if err := w.StartRun(bad, t0); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

// A crash loop writes many short segments. It must not push out what a run
// that worked has written.
func TestCrashLoopKeepsHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 10_000, 3)
	w.StartRun("good", t0)
	for range 200 {
		write(t, w, Stdout, strings.Repeat("x", 51)+"\n")
	}
	good := len(names(t, path))
	for i := range 2 * maxSegments {
		w.StartRun(fmt.Sprintf("bad%d", i), t0)
		write(t, w, Stderr, "x\n")
	}
	var left, all int
	for _, n := range names(t, path) {
		all++
		if strings.HasSuffix(n, ".good") {
			left++
		}
	}
	if left != good || all != maxSegments {
		t.Errorf("%d of %d good segments are left, %d in all", left, good, all)
	}
}

func TestTotalIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 5000, 3)
	for i := range 300 {
		w.StartRun(fmt.Sprint("r", i%7, "-", i/13), t0)
		write(t, w, Stdout, strings.Repeat("abcdef\n", i%40))
		var sum int64
		for _, n := range names(t, path) {
			st, err := os.Stat(filepath.Join(filepath.Dir(path), n))
			if err != nil {
				t.Fatal(err)
			}
			sum += st.Size()
		}
		if sum > 15000 {
			t.Fatalf("%d bytes after step %d", sum, i)
		}
	}
}

func TestOpenRepairs(t *testing.T) {
	whole := h0 + "stdout F whole\n"
	for _, torn := range []string{"", "2026-11", h0 + "stdout F half", strings.Repeat("\x00", 9000)} {
		for _, before := range []string{"", whole} {
			path := filepath.Join(t.TempDir(), "app.log")
			name := filepath.Join(filepath.Dir(path), "app.log.000004.r")
			if err := os.WriteFile(name, []byte(before+torn), 0o600); err != nil {
				t.Fatal(err)
			}
			w := open(t, path, 0, 0)
			w.StartRun("r", t0)
			write(t, w, Stdout, "next\n")
			if got := content(t, path); got != before+h0+"stdout F next\n" {
				t.Errorf("before %q, torn %.20q: got %q", before, torn, got)
			}
		}
	}
}

func TestAdoptsPlainFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(path, []byte(h0+"stdout F old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := open(t, path, 0, 0)
	write(t, w, Stdout, "new\n")
	if got := content(t, path); got != h0+"stdout F old\n"+h0+"stdout F new\n" {
		t.Errorf("got %q", got)
	}
}

// flaky is a file on a disk that has room for so many bytes.
type flaky struct {
	*os.File
	room       int
	noTruncate bool
}

func (f *flaky) Write(p []byte) (int, error) {
	n, err := f.File.Write(p[:min(len(p), f.room)])
	f.room -= n
	if err == nil && n < len(p) {
		err = &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return n, err
}

func (f *flaky) Truncate(n int64) error {
	if f.noTruncate {
		return syscall.EIO
	}
	return f.File.Truncate(n)
}

func fail(w *Writer, room int) *flaky {
	f := &flaky{File: w.f.(*os.File), room: room}
	w.f = f
	return f
}

func TestLossIsCountedAndMarked(t *testing.T) {
	for _, room := range []int{0, 1, 20, 50, 60, 90, 100} {
		path := filepath.Join(t.TempDir(), "app.log")
		w := open(t, path, 0, 0)
		write(t, w, Stdout, "first\n")
		f := fail(w, room)
		if err := w.Write(Stdout, t0, []byte("aaaaa\nbbbbb\nccccc\n")); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
			t.Errorf("the beginning of a loss: %v", err)
		}
		f.room = 0
		if err := w.Write(Stderr, t0, []byte("ddddd\neeeee")); err != nil {
			t.Errorf("a loss that goes on is an error again: %v", err)
		}
		whole := room / 46
		if got, want := content(t, path), h0+"stdout F first\n"; !strings.HasPrefix(got, want) || len(got) != 46*(whole+1) {
			t.Errorf("room %d: while full: %q", room, got)
		}
		f.room = 1 << 20
		write(t, w, Stdout, "last\n")
		want := fmt.Sprintf("stderr F wherry: %d lines (%d bytes) dropped 04:05:06 UTC: no space left on device\n"+h0+"stdout F last\n",
			4-whole, 29-6*whole)
		if got := content(t, path); !strings.HasSuffix(got, want) {
			t.Errorf("room %d: got %q, want %q", room, got, want)
		}
	}
}

func TestLossEndsOpenLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 0, 0)
	write(t, w, Stdout, "out begins")
	write(t, w, Stderr, "err begins")
	f := fail(w, 0)
	w.Write(Stderr, t0, []byte(" and ends\n"))
	f.room = 1 << 20
	write(t, w, Stdout, " and ends\n")
	want := h0 + "stdout P out begins\n" + h0 + "stderr P err begins\n" + h0 + "stderr F \n" +
		h0 + "stderr F wherry: 1 line (10 bytes) dropped 04:05:06 UTC: no space left on device\n" +
		h0 + "stdout F  and ends\n"
	if got := content(t, path); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestLossAtTheEndIsMarkedByClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 0, 0)
	write(t, w, Stdout, "first\n")
	f := fail(w, 0)
	w.Write(Stdout, t0, []byte("lost\n"))
	f.room = 1 << 20
	w.Close()
	if got := content(t, path); !strings.Contains(got, "wherry: 1 line (5 bytes) dropped") {
		t.Errorf("got %q", got)
	}
}

// Where the torn part cannot be cut off, the segment is given up.
func TestTornRecordThatStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 0, 0)
	write(t, w, Stdout, "first\n")
	fail(w, 10).noTruncate = true
	w.Write(Stdout, t0, []byte("lost\n"))
	write(t, w, Stdout, "next\n")
	want := h0 + "stderr F wherry: 1 line (5 bytes) dropped 04:05:06 UTC: no space left on device\n" + h0 + "stdout F next\n"
	if got := content(t, path); got != want {
		t.Errorf("got %q", got)
	}
	if n := names(t, path); len(n) != 2 {
		t.Errorf("segments %v", n)
	}
}

func TestSegmentThatCannotBeMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "app.log")
	w := open(t, path, 0, 0)
	os.RemoveAll(dir)
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the folder was
		t.Fatal(err)
	}
	if err := w.Write(Stdout, t0, []byte("a\nb\n")); err == nil {
		t.Error("no error")
	}
	os.Remove(dir)
	write(t, w, Stdout, "c\n")
	want := h0 + "stderr F wherry: 2 lines (4 bytes) dropped 04:05:06 UTC: not a directory\n" + h0 + "stdout F c\n"
	if got := content(t, path); got != want {
		t.Errorf("got %q", got)
	}
}

func TestRemovedByHand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "app.log")
	w := open(t, path, 0, 0)
	w.StartRun("r", t0)
	write(t, w, Stdout, "gone\n")
	os.RemoveAll(filepath.Dir(path))
	w.Write(Stdout, t0.Add(time.Second), []byte("here\n"))
	if got := content(t, path); !strings.HasSuffix(got, "stdout F here\n") {
		t.Errorf("got %q", got)
	}
}

func TestEmptiedByHand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 102, 0)
	write(t, w, Stdout, "1234567890\n")
	os.Truncate(path, 0)
	w.Write(Stdout, t0.Add(time.Second), []byte("1234567890\n"))
	w.Write(Stdout, t0.Add(time.Second), []byte("abcdefghi\n"))
	if n := names(t, path); len(n) != 1 {
		t.Errorf("segments %v", n)
	}
}

// The disk is really full here.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("whC-log", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal("no tmpfs: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "app.log")
	w := open(t, path, 0, 0)
	t.Cleanup(func() { w.Close() })
	write(t, w, Stdout, "first\n")
	hog := filepath.Join(dir, "hog")
	os.WriteFile(hog, make([]byte, 1<<20), 0o600)
	line := strings.Repeat("z", 99) + "\n"
	for range 1000 {
		w.Write(Stdout, t0, []byte(line))
	}
	if b := content(t, path); !strings.HasSuffix(b, "\n") {
		t.Errorf("a torn record ends the file: %q", b[max(0, len(b)-200):])
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	write(t, w, Stdout, "last\n")
	got := content(t, path)
	// The end of the last page may have had room for a marker in between.
	lines := 0
	for _, m := range marks.FindAllStringSubmatch(got, -1) {
		l, _ := strconv.Atoi(m[1])
		lines += l
		if want := volume(int64(100 * l)); m[2] != want {
			t.Errorf("%d lines are %s, not %s", l, m[2], want)
		}
	}
	if kept := strings.Count(got, line); lines != 1000-kept || lines < 500 {
		t.Errorf("%d lines are marked as lost, %d kept", lines, kept)
	}
	if !strings.HasSuffix(got, " dropped 04:05:06 UTC: no space left on device\n"+h0+"stdout F last\n") {
		t.Errorf("got %q", got[max(0, len(got)-300):])
	}
}

var marks = regexp.MustCompile(`stderr F wherry: (\d+) lines? \(([^)]*)\) dropped`)

func TestWriteDoesNotAllocate(t *testing.T) {
	w := open(t, filepath.Join(t.TempDir(), "app.log"), 1<<30, 0)
	p := bytes.Repeat([]byte("a line of the usual length\n"), 100)
	write(t, w, Stdout, "x")
	if n := testing.AllocsPerRun(100, func() { w.Write(Stdout, t0, p) }); n > 0.5 {
		t.Errorf("%v allocations a piece", n)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w := open(b, filepath.Join(b.TempDir(), "app.log"), 0, 0)
			line := strings.Repeat("z", 99) + "\n"
			p := []byte(strings.Repeat(line, size/len(line)))
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Write(Stdout, time.Now(), p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
