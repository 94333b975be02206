package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// numbers writes the lines 0 to n-1, a second apart, four to a segment.
func numbers(t *testing.T, path string, n int) {
	t.Helper()
	w := open(t, path, 180, 100)
	for i := range n {
		if err := w.Write(Stdout, t0.Add(time.Duration(i)*time.Second), fmt.Appendf(nil, "%d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
}

func TestUntil(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	numbers(t, path, 20)
	at := func(n int) time.Time { return t0.Add(time.Duration(n) * time.Second) }
	want(t, texts(t, path, ReadOptions{Until: at(5)}), "0 1 2 3 4 5")
	want(t, texts(t, path, ReadOptions{Since: at(3), Until: at(5)}), "3 4 5")
	want(t, texts(t, path, ReadOptions{Until: at(5), Tail: 2}), "4 5")
	want(t, texts(t, path, ReadOptions{Until: at(-1), Tail: 2}), "")
}

// TestAfter: whoever goes on from the place of any record sees each later
// one exactly once, whatever has been rotated since.
func TestAfter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	numbers(t, path, 10)
	var places []Place
	for r, err := range Read(context.Background(), path, ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, r.At)
	}
	numbers(t, path, 3)
	all := strings.Fields("0 1 2 3 4 5 6 7 8 9 0 1 2")
	for i, p := range places {
		want(t, texts(t, path, ReadOptions{After: p}), strings.Join(all[i+1:], " "))
		want(t, texts(t, path, ReadOptions{After: p, Tail: 5}), strings.Join(all[max(i+1, len(all)-5):], " "))
	}
}

// TestAfterPlainFile: a place in a file that is no segment yet means the same in the one
// that a writer makes of it.
func TestAfterPlainFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(path, []byte(h0+"stdout F a\n"+h0+"stdout F b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var first Place
	for r := range Read(context.Background(), path, ReadOptions{}) {
		first = r.At
		break
	}
	want(t, texts(t, path, ReadOptions{After: first}), "b")
	write(t, open(t, path, 0, 0), Stdout, "c\n")
	want(t, texts(t, path, ReadOptions{After: first}), "b c")
}

func TestAfterWhatIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	numbers(t, path, 10)
	first := filepath.Join(filepath.Dir(path), names(t, path)[0])
	for r := range Read(context.Background(), path, ReadOptions{}) {
		if string(r.Text) != "1" {
			continue
		}
		if err := os.Remove(first); err != nil {
			t.Fatal(err)
		}
		got := texts(t, path, ReadOptions{After: r.At})
		if len(got) == 0 || !strings.HasPrefix(got[0], "wherry: 1 file of this log were rotated away") {
			t.Fatalf("got %q", got)
		}
		want(t, got[1:], "4 5 6 7 8 9")
	}
	want(t, texts(t, path, ReadOptions{After: Place{Segment: 99, Offset: 7}}), "4 5 6 7 8 9")
	want(t, texts(t, path, ReadOptions{After: Place{Segment: 2, Offset: 7}}), "4 5 6 7 8 9")
}

// TestReadEnds: reading without following ends where the log ended at its
// beginning, however fast somebody writes.
func TestReadEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 1<<20, 10)
	write(t, w, Stdout, "first\nsecond\n")
	n := 0
	for range Read(context.Background(), path, ReadOptions{}) {
		write(t, w, Stdout, "more\n")
		n++
	}
	if n != 2 {
		t.Errorf("%d records", n)
	}
}

// TestFollowEmptiedAndFull: a log that was emptied and is longer again before
// anybody looked is read from its new beginning.
func TestFollowEmptiedAndFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 0, 0)
	write(t, w, Stdout, "old\n")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got []string
	for r, err := range Read(ctx, path, ReadOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, show(r))
		switch show(r) {
		case "old":
			write(t, w, Stdout, "older\n")
		case "older":
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			if err := w.Write(Stdout, t0.Add(time.Second), []byte("new\nnewer\nnewest\n")); err != nil {
				t.Fatal(err)
			}
		case "newest":
			cancel()
		}
	}
	want(t, got, "old older new newer newest")
}

func TestDrop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 0, 0)
	write(t, w, Stdout, "a\n")
	if err := w.Drop(Stdout, Dropped{Lines: 142, Bytes: 12_345, From: t0.Add(-8 * time.Second), To: t0}, ErrSlow); err != nil {
		t.Fatal(err)
	}
	write(t, w, Stdout, "b\n")
	got := texts(t, path, ReadOptions{})
	if len(got) != 3 || got[1] != "wherry: 142 lines (12 kB) dropped 04:04:58-04:05:06 UTC: the disk was too slow" {
		t.Errorf("got %q", got)
	}
	// A loss that begins with it is told of once, as one that begins with a write.
	fail(w, 0)
	if err := w.Drop(Stdout, Dropped{Lines: 1, Bytes: 2, From: t0, To: t0}, ErrSlow); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Errorf("with a full disk: %v", err)
	}
	if err := w.Drop(Stdout, Dropped{Lines: 1, Bytes: 2, From: t0, To: t0}, ErrSlow); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := w.Write(Stdout, t0, []byte("c\n")); err != nil {
		t.Errorf("a write: %v", err)
	}
}

// damaged is a file on a broken place of the disk.
type damaged struct{ *os.File }

func (damaged) Write([]byte) (int, error) { return 0, &os.PathError{Op: "write", Err: syscall.EIO} }

// TestDamagedSegment: output goes on in another file.
func TestDamagedSegment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 0, 0)
	write(t, w, Stdout, "a\n")
	w.f = damaged{w.f.(*os.File)}
	if err := w.Write(Stdout, t0, []byte("b\n")); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	write(t, w, Stdout, "c\n")
	want(t, texts(t, path, ReadOptions{}), "a wherry: 1 line (2 bytes) dropped 04:05:06 UTC: input/output error c")
}

func TestTrim(t *testing.T) {
	dir := t.TempDir()
	var all []string
	for u, unit := range []string{"a", "b"} {
		path := filepath.Join(dir, unit, unit+".1", "app.log")
		w := open(t, path, 0, 100)
		for i := range 4 {
			w.StartRun(fmt.Sprint("r", i), t0)
			write(t, w, Stdout, strings.Repeat("x", 100-headLen-1)+"\n")
		}
		w.Close()
		for i, n := range names(t, path) {
			file := filepath.Join(filepath.Dir(path), n)
			all = append(all, file)
			at := t0.Add(time.Duration(2*i+u) * time.Minute)
			if err := os.Chtimes(file, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, freed, err := Trim(dir, 800); n != 0 || freed != 0 || err != nil {
		t.Errorf("%d files of %d bytes went, %v", n, freed, err)
	}
	if n, freed, err := Trim(dir, 550); n != 3 || freed != 300 || err != nil {
		t.Errorf("%d files of %d bytes went, %v", n, freed, err)
	}
	for i, file := range all {
		_, err := os.Stat(file)
		if gone := i == 0 || i == 1 || i == 4; gone != os.IsNotExist(err) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if n, _, err := Trim(dir, 0); n != 3 || err != nil {
		t.Errorf("%d files went, %v: the newest of each log must stay", n, err)
	}
	if _, _, err := Trim(filepath.Join(dir, "absent"), 0); err != nil {
		t.Error(err)
	}
}
