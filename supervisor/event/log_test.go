package event

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

func open(t *testing.T, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func all(t *testing.T, l *Log, since uint64) []api.Event {
	t.Helper()
	var out []api.Event
	for e, err := range l.Read(context.Background(), since, false) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func TestSequenceGoesOnAfterReopen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	l.Append(api.Event{Type: Apply, Message: "one"})
	l.Append(api.Event{Type: Start, Message: "two"})
	l.Close()
	l = open(t, dir, Options{})
	if e := l.Append(api.Event{Type: Exit, Message: "three"}); e.Seq != 3 {
		t.Fatalf("seq %d after reopen, want 3", e.Seq)
	}
	got := all(t, l, 1)
	if len(got) != 2 || got[0].Message != "two" || got[1].Message != "three" {
		t.Fatalf("events after 1: %+v", got)
	}
}

func TestBoundedAndNeverRepeats(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentSize: 500, Segments: 3})
	for range 100 {
		l.Append(api.Event{Type: Exit, Message: strings.Repeat("x", 50)})
	}
	segs, _ := segments(dir)
	if len(segs) != 3 {
		t.Fatalf("%d segments, want 3", len(segs))
	}
	got := all(t, l, 0)
	if len(got) == 0 || got[len(got)-1].Seq != 100 {
		t.Fatalf("last event is not 100: %d events", len(got))
	}
	for i := 1; i < len(got); i++ {
		if got[i].Seq != got[i-1].Seq+1 {
			t.Fatalf("gap after %d", got[i-1].Seq)
		}
	}
	l.Close()
	if l = open(t, dir, Options{SegmentSize: 500, Segments: 3}); l.Last() != 100 {
		t.Fatalf("last %d after reopen", l.Last())
	}
}

func TestCrashLeavesHalfALine(t *testing.T) {
	for name, tail := range map[string]string{
		"cut":     `{"seq":2,"time":"2026-01`,
		"garbage": "\x00\x00\x00\x00\n",
		"both":    "\x00\x00\n{\"se",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, Options{})
			l.Append(api.Event{Message: "one"})
			l.Close()
			f, err := os.OpenFile(filepath.Join(dir, segmentName(1)), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString(tail)
			f.Close()
			l = open(t, dir, Options{})
			l.Append(api.Event{Message: "two"})
			got := all(t, l, 0)
			if len(got) != 2 || got[1].Seq != 2 || got[1].Message != "two" {
				t.Fatalf("%+v", got)
			}
		})
	}
}

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(dir, Options{SegmentSize: 300, Segments: 50})
		if err != nil {
			t.Fatal(err)
		}
		l.Append(api.Event{Message: "old"})
		ctx, cancel := context.WithCancel(t.Context())
		var got []uint64
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e, err := range l.Read(ctx, 0, true) {
				if err != nil {
					t.Error(err)
				}
				got = append(got, e.Seq)
				time.Sleep(time.Second) // a slow reader
			}
		}()
		start := time.Now()
		for range 49 {
			l.Append(api.Event{Message: strings.Repeat("y", 40)})
		}
		if time.Since(start) > 0 {
			t.Error("Append waited for the reader")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(got) != 50 || got[0] != 1 || got[49] != 50 {
			t.Errorf("follower saw %v", got)
		}
		cancel()
		<-done
		l.Close()
	})
}

func TestCloseEndsFollowers(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range l.Read(t.Context(), 0, true) {
			}
		}()
		synctest.Wait()
		l.Close()
		<-done
	})
}

func TestTypesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Types() {
		if seen[s] {
			t.Errorf("%s twice", s)
		}
		seen[s] = true
	}
}

// TestSyncsAfterEachBurst: the syncer sleeps while nothing is written, and misses nothing that is.
func TestSyncsAfterEachBurst(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(dir, Options{SyncEvery: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		dirty := func() bool {
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.dirty
		}
		for burst := range 3 {
			for range 5 {
				l.Append(api.Event{Message: "x"})
			}
			if !dirty() {
				t.Errorf("burst %d: synced one by one", burst)
			}
			time.Sleep(2 * time.Second)
			if dirty() {
				t.Errorf("burst %d: not synced", burst)
			}
			time.Sleep(time.Hour)
		}
	})
}
