package logfile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// texts reads without following and returns "text" or "text+" (partial).
func texts(t testing.TB, path string, o ReadOptions) []string {
	t.Helper()
	var out []string
	for r, err := range Read(context.Background(), path, o) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, show(r))
	}
	return out
}

func show(r Record) string {
	s := string(r.Text)
	if r.Partial {
		s += "+"
	}
	return s
}

func want(t testing.TB, got []string, words string) {
	t.Helper()
	if g := strings.Join(got, " "); g != words {
		t.Errorf("got %.200q, want %q", g, words)
	}
}

func TestReadAcrossSegmentsAndRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 100, 100)
	for i := range 9 {
		if i%4 == 0 {
			w.StartRun(fmt.Sprint("r", i/4), t0)
		}
		w.Write([]string{Stdout, Stderr}[i%2], t0.Add(time.Duration(i)*time.Second), fmt.Appendf(nil, "%d\n", i))
	}
	want(t, texts(t, path, ReadOptions{}), "0 1 2 3 4 5 6 7 8")
	want(t, texts(t, path, ReadOptions{Run: "r1"}), "4 5 6 7")
	want(t, texts(t, path, ReadOptions{Run: "r9"}), "")
	want(t, texts(t, path, ReadOptions{Tail: 2}), "7 8")
	want(t, texts(t, path, ReadOptions{Tail: 5}), "4 5 6 7 8")
	want(t, texts(t, path, ReadOptions{Tail: 50}), "0 1 2 3 4 5 6 7 8")
	want(t, texts(t, path, ReadOptions{Tail: 3, Run: "r1"}), "5 6 7")
	for i := range 10 {
		want(t, texts(t, path, ReadOptions{Since: t0.Add(time.Duration(i) * time.Second)}), strings.Join(strings.Fields("0 1 2 3 4 5 6 7 8")[i:], " "))
	}
	i := 0
	for r, err := range Read(context.Background(), path, ReadOptions{}) {
		if err != nil || !r.Time.Equal(t0.Add(time.Duration(i)*time.Second)) || r.Stream != []string{Stdout, Stderr}[i%2] || r.Run != fmt.Sprint("r", i/4) {
			t.Errorf("record %d: %+v, %v", i, r, err)
		}
		i++
	}
}

func TestReadAbsent(t *testing.T) {
	dir := t.TempDir()
	want(t, texts(t, filepath.Join(dir, "app.log"), ReadOptions{}), "")
	want(t, texts(t, filepath.Join(dir, "no", "app.log"), ReadOptions{Tail: 3}), "")
	done := make(chan struct{})
	close(done)
	want(t, texts(t, filepath.Join(dir, "no", "app.log"), ReadOptions{Follow: true, Done: done}), "")
}

// A log that somebody else has written, and one that is damaged.
func TestReadForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	os.WriteFile(path, []byte(
		"2026-11-03T04:05:06.1+09:00 stdout F one\n"+
			"2026-11-03T04:05:06Z stderr P:x two\n"+
			"2026-11-03T04:05:07Z stdout F\n"+
			"2026-11-03T04:05:07Z stdout X three\n"+
			"\x00\x00\x00\n"+
			"2026-11-03T04:05:08Z stdin F four\n"+
			"2026-11-03T04:05:09.123456789Z stdout F five\n"+
			"2026-11-03T04:05:09.123456789Z stdout F torn"), 0o600)
	got := texts(t, path, ReadOptions{})
	wanted := []string{"one", "two+", "", "2026-11-03T04:05:07Z stdout X three", "\x00\x00\x00", "2026-11-03T04:05:08Z stdin F four", "five"}
	if !slices.Equal(got, wanted) {
		t.Errorf("got %q", got)
	}
	want(t, texts(t, path, ReadOptions{Tail: 1}), "five")
}

// A hole as a power cut leaves it, larger than any record.
func TestReadHole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 0, 0)
	write(t, w, Stdout, "before\n")
	w.Close()
	f, _ := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	f.Write(make([]byte, 3*maxBlock+17))
	f.WriteString("\n")
	f.Close()
	w = open(t, path, 0, 0)
	write(t, w, Stdout, "after\n")
	n, last := 0, ""
	for r, err := range Read(context.Background(), path, ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		n += len(r.Text)
		last = string(r.Text)
	}
	if n != len("before")+3*maxBlock+17+len("after") || last != "after" {
		t.Errorf("%d bytes, last %.100q", n, last)
	}
	want(t, texts(t, path, ReadOptions{Tail: 1}), "after")
	if got := texts(t, path, ReadOptions{Tail: 3}); got[len(got)-1] != "after" {
		t.Errorf("tail ends with %.100q", got[len(got)-1])
	}
}

func TestTailCountsLinesNotRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 150, 100)
	for _, p := range []string{"a", "b\n", "c\n", "d", "e", "f\n", "g"} {
		write(t, w, Stdout, p)
	}
	want(t, texts(t, path, ReadOptions{Tail: 1}), "g+")
	want(t, texts(t, path, ReadOptions{Tail: 2}), "d+ e+ f g+")
	want(t, texts(t, path, ReadOptions{Tail: 3}), "c d+ e+ f g+")
	want(t, texts(t, path, ReadOptions{Tail: 4}), "a+ b c d+ e+ f g+")
}

// Tail by reading backwards is the end of reading forwards, for lines of every
// length across blocks and segments.
func TestTailIsEnd(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		path := filepath.Join(t.TempDir(), "app.log")
		w := open(t, path, 100_000, 100)
		lines := 50 + rnd.IntN(200)
		for range lines {
			n := rnd.IntN(200)
			if rnd.IntN(10) == 0 {
				n = rnd.IntN(40_000)
			}
			write(t, w, Stdout, strings.Repeat("x", n)+"\n")
		}
		all := texts(t, path, ReadOptions{})
		var starts []int // of lines, in records
		for i := range all {
			if i == 0 || !strings.HasSuffix(all[i-1], "+") {
				starts = append(starts, i)
			}
		}
		if len(starts) != lines {
			t.Fatalf("%d lines of %d are there", len(starts), lines)
		}
		for _, n := range []int{1, 2, 7, lines / 2, lines - 1, lines, lines + 1} {
			if got := texts(t, path, ReadOptions{Tail: n}); !slices.Equal(got, all[starts[max(0, lines-n)]:]) {
				t.Fatalf("the last %d of %d lines: got %d records", n, lines, len(got))
			}
		}
	}
}

func TestStopEarly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	write(t, open(t, path, 0, 0), Stdout, "a\nb\nc\n")
	for r, err := range Read(context.Background(), path, ReadOptions{Follow: true}) {
		if err != nil || string(r.Text) != "a" {
			t.Errorf("got %q, %v", r.Text, err)
		}
		break
	}
}

func TestCancel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	write(t, open(t, path, 0, 0), Stdout, "a\n")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, err := range Read(ctx, path, ReadOptions{Follow: true}) {
		if err != nil {
			t.Errorf("the end of following is an error: %v", err)
		}
		cancel()
	}
	var last error
	for _, err := range Read(ctx, path, ReadOptions{}) {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("an interrupted reading ends with %v", last)
	}
}

// A follower that began before the folder was there sees each line once, in
// order, over many rotations and restarts of the writer.
func TestFollow(t *testing.T) {
	for _, polling := range []bool{false, true} {
		t.Run(fmt.Sprint("polling=", polling), func(t *testing.T) {
			t.Parallel()
			const lines = 20_000
			path := filepath.Join(t.TempDir(), "logs", "app.log")
			if !polling {
				os.Mkdir(filepath.Dir(path), 0o700)
			}
			done := make(chan struct{})
			failed := make(chan error, 1)
			go func() { failed <- writeNumbers(path, lines, done) }()
			next := 0
			for r, err := range Read(context.Background(), path, ReadOptions{Follow: true, Done: done}) {
				if err != nil {
					t.Fatal(err)
				}
				n, err := strconv.Atoi(string(r.Text))
				if err != nil || n != next {
					t.Fatalf("got %q, want %d", r.Text, next)
				}
				next++
			}
			if err := <-failed; err != nil || next != lines {
				t.Errorf("%d of %d lines came, writer: %v", next, lines, err)
			}
		})
	}
}

func writeNumbers(path string, lines int, done chan struct{}) error {
	defer close(done)
	w, err := Open(path, 20_000, 1000)
	for i := range lines {
		if err != nil {
			return err
		}
		if i%3000 == 2999 {
			w.Close()
			if w, err = Open(path, 20_000, 1000); err == nil {
				err = w.StartRun(fmt.Sprint("run", i), t0)
			}
		}
		if err == nil {
			err = w.Write(Stdout, t0.Add(time.Duration(i)), fmt.Appendf(nil, "%d\n", i))
		}
	}
	return errors.Join(err, w.Close())
}

// A follower that sleeps while segments are dropped is told so.
func TestFollowTooSlow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 100, 2)
	write(t, w, Stdout, "first\n")
	var got []string
	for r, err := range Read(context.Background(), path, ReadOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(r.Text))
		switch len(got) {
		case 1: // now it is waiting
			write(t, w, Stdout, "second\n")
		case 2:
			for range 20 {
				write(t, w, Stdout, "more\n")
			}
		}
		if string(r.Text) == "more" {
			break
		}
	}
	if last := got[len(got)-2]; !strings.Contains(last, "were rotated away before they could be shown here") {
		t.Errorf("got %q", got)
	}
}

// One that is to miss nothing holds what is dropped meanwhile, and nothing at its end.
func TestFollowWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w := open(t, path, 100, 2)
	write(t, w, Stdout, "first\n")
	held := func(n int) (held int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
			if strings.HasPrefix(to, fmt.Sprintf("%s.%06d", path, n)) {
				held++
			}
		}
		return held
	}
	const more = 20
	done := make(chan struct{})
	got, last := 0, 0
	for r, err := range Read(t.Context(), path, ReadOptions{Follow: true, Whole: true, Done: done}) {
		if err != nil {
			t.Fatal(err)
		}
		if got++; got > 1 {
			if want := fmt.Sprintf("more %d", got-1); string(r.Text) != want {
				t.Fatalf("%q, want %q", r.Text, want)
			}
			continue
		}
		for n := 1; n <= more; n++ {
			write(t, w, Stdout, fmt.Sprintf("more %d\n", n))
			segs, err := list(path)
			if err != nil {
				t.Fatal(err)
			}
			for last = int(segs[len(segs)-1].seq); held(last) < 2; { // the writer's and ours
				time.Sleep(time.Millisecond)
			}
		}
		close(done)
	}
	if got != more+1 {
		t.Errorf("%d records, want %d", got, more+1)
	}
	for n := 1; n < last; n++ {
		if held(n) > 0 {
			t.Errorf("segment %d is still held", n)
		}
	}
}

func TestFollowEmptiedAndRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "app.log")
	w := open(t, path, 0, 0)
	write(t, w, Stdout, "first and long\n")
	at := t0
	put := func(text string) {
		at = at.Add(time.Second)
		if err := w.Write(Stdout, at, []byte(text+"\n")); err != nil {
			t.Error(err)
		}
	}
	var got []string
	for r, err := range Read(context.Background(), path, ReadOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(r.Text))
		switch string(r.Text) {
		case "first and long":
			os.Truncate(path, 0)
			put("second")
		case "second":
			os.RemoveAll(filepath.Dir(path))
			put("third")
		}
		if string(r.Text) == "third" {
			break
		}
	}
	want(t, got, "first and long second third")
}

// A plain file that a writer adopts is not read twice.
func TestFollowAdoption(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	os.WriteFile(path, []byte(h0+"stdout F a\n"), 0o600)
	var got []string
	for r, err := range Read(context.Background(), path, ReadOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(r.Text))
		if len(got) == 1 {
			write(t, open(t, path, 0, 0), Stdout, "b\n")
			continue
		}
		break
	}
	want(t, got, "a b")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(h0 + "stdout F text"))
	f.Add([]byte(h0 + "stderr P "))
	f.Add([]byte("2026-11-03T04:05:06Z stdout F:a,b text"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var p parser
		r := p.parse(line)
		if r.Stream != Stdout && r.Stream != Stderr {
			t.Errorf("stream %q", r.Stream)
		}
		if len(r.Text) > len(line) {
			t.Error("longer than the line")
		}
		isPartial(line)
	})
}

// What is written is read again, whatever the bytes and the pieces.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("one\ntwo"), []byte("\n\x00\r"), uint16(60))
	f.Fuzz(func(t *testing.T, a, b []byte, size uint16) {
		path := filepath.Join(t.TempDir(), "app.log")
		w, err := Open(path, int64(size)+1, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		var in, out []byte
		for i, p := range [][]byte{a, b} {
			if len(p) > 2000 {
				p = p[:2000]
			}
			in = append(in, p...)
			if err := w.Write(Stdout, t0.Add(time.Duration(i)), p); err != nil {
				t.Fatal(err)
			}
		}
		if len(names(t, path)) == maxSegments {
			return // some of it is gone by right
		}
		for r, err := range Read(context.Background(), path, ReadOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, r.Text...)
			if !r.Partial {
				out = append(out, '\n')
			}
		}
		if string(in) != string(out) {
			t.Errorf("wrote %q, read %q", in, out)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "app.log")
	w := open(b, path, 0, 20)
	p := []byte(strings.Repeat(strings.Repeat("z", 99)+"\n", 640))
	const size = 200 << 20
	for n := 0; n < size; n += len(p) {
		w.Write(Stdout, time.Now(), p)
	}
	for _, o := range []ReadOptions{{}, {Tail: 100}, {Since: time.Now()}} {
		b.Run(fmt.Sprintf("tail=%d,since=%v", o.Tail, !o.Since.IsZero()), func(b *testing.B) {
			if o.Tail == 0 {
				b.SetBytes(size)
			}
			for b.Loop() {
				for _, err := range Read(context.Background(), path, o) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
