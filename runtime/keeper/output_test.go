package keeper

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/logfile"
)

// TestOutputThatIsLost: the keeper's log tells of each time that output begins to be lost, and of the container, but not more than once a
// minute. The queue's losses are among them.
func TestOutputThatIsLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	var own bytes.Buffer
	o, err := openLog(runtime.LogConfig{Path: filepath.Join(dir, "app.log")}, "web.1-aaaa", slog.New(slog.NewTextHandler(&own, nil)).With("container", "app"))
	if err != nil {
		t.Fatal(err)
	}
	t0 := time.Now()
	write := func(after time.Duration) { o.write("stdout", t0.Add(after), []byte("x\n")) }
	drop := func(after time.Duration) {
		at := t0.Add(after)
		o.drop("stdout", logfile.Dropped{Lines: 1, Bytes: 2, From: at, To: at})
	}
	for _, c := range []struct {
		name  string
		lose  func(time.Duration)
		after time.Duration
		want  int
	}{
		{"the first", write, 0, 1},
		{"soon after", write, tellEvery - time.Second, 1},
		{"later", drop, tellEvery, 2},
		{"much later", write, time.Hour, 3},
		{"the clock was set back", write, 0, 4},
	} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // nothing can be made there
			t.Fatal(err)
		}
		c.lose(c.after)
		write(c.after)
		if got := strings.Count(own.String(), "level=WARN"); got != c.want {
			t.Errorf("%s: told %d times, want %d: %s", c.name, got, c.want, &own)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		o.write("stdout", t0.Add(c.after), []byte("y\n"))
		text, err := os.ReadFile(filepath.Join(dir, "app.log"))
		if err != nil || !bytes.Contains(text, []byte("dropped")) {
			t.Errorf("%s: a log that can be written again: %q, %v", c.name, text, err)
		}
		o.file.Close() // the next one is made anew
	}
	if !strings.Contains(own.String(), "container=app") || !strings.Contains(own.String(), "app.log") {
		t.Errorf("it does not say of what: %s", &own)
	}
}
