package runtime_test

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"testing"

	"github.com/wherry-run/wherry/runtime"
)

// counter is a container that writes growing numbers as fast as it can, so that a kill always
// finds some on their way. What it writes in a test's time is much: it is read as a whole
// once, after the counter's end, for one that goes on would outrun a loaded reader.
func counter(w *world) runtime.Config {
	c := w.config("sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; done")
	c.Log.MaxSize = 4 << 30 // rotated segments would be dropped
	return c
}

// record takes the text out of a line of a log. One that is not whole goes on in the next.
func record(line []byte) (text []byte, whole, ok bool) {
	f := bytes.SplitN(line, []byte(" "), 4) // time, stream, tag, text
	if len(f) < 4 || bytes.HasPrefix(line, []byte("#")) {
		return nil, false, false
	}
	return f[3], string(f[2]) == "F", true
}

// last is the newest whole number in a counter's log, 0 if there is none yet.
func last(t *testing.T, c runtime.Config) (n int) {
	t.Helper()
	f, err := os.Open(c.Log.Path)
	if os.IsNotExist(err) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, min(st.Size(), 4096))
	if _, err := f.ReadAt(b, st.Size()-int64(len(b))); err != nil {
		t.Fatal(err)
	}
	cut := true // the first line begins before b does, and the number in it may
	for line := range bytes.Lines(b) {
		text, whole, ok := record(bytes.TrimSuffix(line, []byte("\n")))
		if ok && whole && !cut && bytes.HasSuffix(line, []byte("\n")) {
			n, _ = strconv.Atoi(string(text))
		}
		cut = !whole
	}
	return n
}

// goesOn waits until a counter has written what it has not written before.
func (w *world) goesOn(t *testing.T, c runtime.Config) {
	t.Helper()
	before := last(t, c)
	w.await("more output", func() bool { return last(t, c) > before })
}

// checkSequence looks for gaps in all that a counter wrote. A piece may repeat where a
// keeper was killed.
func checkSequence(t *testing.T, c runtime.Config) {
	t.Helper()
	f, err := os.Open(c.Log.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	newest := 0
	var number []byte
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		text, whole, ok := record(lines.Bytes())
		if !ok {
			continue
		}
		if number = append(number, text...); !whole {
			continue
		}
		n, err := strconv.Atoi(string(number))
		if err != nil {
			t.Fatalf("line %q after %d: %v", number, newest, err)
		}
		if n > newest+1 {
			t.Fatalf("gap: %d after %d", n, newest)
		}
		newest, number = max(newest, n), number[:0]
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if newest == 0 {
		t.Fatal("a counter wrote nothing")
	}
}
