package keeper

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// TestRest: what was written before a keeper rests is in the log once, what comes after waits in the pipe for the next keeper, and an end that comes
// meanwhile is not worked out any more.
func TestRest(t *testing.T) {
	l, err := bundle.New(filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(l.Containers(), 0o700); err != nil {
		t.Fatal(err)
	}
	const id = "web.1-aaaa.app"
	if err := makePipes(l, id); err != nil {
		t.Fatal(err)
	}
	inside, err := openPipe(l.Pipe(id, "stdout"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	cfg := runtime.LogConfig{Path: filepath.Join(t.TempDir(), "app.log"), MaxSize: 1 << 20, MaxFile: 1}
	begin := func() *pump {
		t.Helper()
		log, err := openLog(cfg, "web.1-aaaa", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p, err := startPump(l, id, log, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := begin()
	io.WriteString(inside, "before\n")
	k := &Keeper{containers: map[string]*container{id: {pump: p}, "none": {}}}
	k.rest(time.Minute)
	io.WriteString(inside, "after\n")
	stopped := make(chan struct{})
	go func() { p.stop(); close(stopped) }()
	k.rest(time.Minute) // a second time changes nothing
	text, err := os.ReadFile(cfg.Path)
	if err != nil || bytes.Count(text, []byte("before")) != 1 || bytes.Contains(text, []byte("after")) {
		t.Errorf("log after the rest: %q %v", text, err)
	}
	next := begin()
	next.stop()
	text, err = os.ReadFile(cfg.Path)
	if err != nil || bytes.Count(text, []byte("before")) != 1 || bytes.Count(text, []byte("after")) != 1 {
		t.Errorf("log of the next keeper: %q %v", text, err)
	}
	select {
	case <-stopped:
		t.Error("an end was worked out by a keeper that rests")
	default:
	}
}
