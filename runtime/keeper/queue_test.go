package keeper

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/runtime/internal/logfile"
)

// slowSink is a log on a disk that stands still until it is let go.
type slowSink struct {
	gate chan struct{} // closed: the disk works

	mu  sync.Mutex
	got []string
}

func (s *slowSink) write(stream string, _ time.Time, p []byte) {
	<-s.gate
	s.add(stream + ":" + string(p))
}

func (s *slowSink) drop(stream string, d logfile.Dropped) {
	s.add(fmt.Sprintf("%s:-%d/%d in %v", stream, d.Lines, d.Bytes, d.To.Sub(d.From)))
}

func (s *slowSink) add(word string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, word)
}

func (s *slowSink) words() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.got, " ")
}

// TestQueueNeverWaitsLong: a disk that stands still costs a container one moment, and
// afterwards everything stands in its place: what was kept, and how much was not.
func TestQueueNeverWaitsLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowSink{gate: make(chan struct{})}
		q := newQueue(s, 10)
		began := time.Now()
		for _, p := range []string{"1234\n", "678\n", "xx\n", "xx\nxx\n", "9"} {
			q.put("stdout", time.Now(), []byte(p))
			time.Sleep(time.Second)
		}
		q.put("stderr", time.Now(), []byte("gone\n"))
		if took := time.Since(began); took != 5*time.Second+queuePatience {
			t.Errorf("the container waited for %v", took-5*time.Second)
		}
		if got := s.words(); got != "" {
			t.Errorf("written to a disk that stands still: %q", got)
		}
		close(s.gate)
		synctest.Wait()
		want := "stdout:1234\n stdout:678\n stdout:-3/9 in 1s stdout:9 stderr:-1/5 in 0s"
		if got := s.words(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		began = time.Now()
		q.put("stdout", time.Now(), []byte("again\n"))
		if took := time.Since(began); took != 0 || !strings.HasSuffix(s.words(), " stdout:again\n") {
			t.Errorf("with a disk that works, put took %v and gave %q", took, s.words())
		}
		q.close()
	})
}

// TestQueueIsBounded: however the streams take turns, what is dropped takes no memory.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowSink{gate: make(chan struct{})}
		q := newQueue(s, 4)
		for i := range 1000 {
			q.put(streamNames[i%2], time.Now(), []byte("abcd"))
		}
		q.mu.Lock()
		if len(q.waiting) > 3 {
			t.Errorf("%d pieces wait", len(q.waiting))
		}
		q.mu.Unlock()
		close(s.gate)
		q.close()
		if want := "stdout:abcd stderr:-0/2000 in 0s stdout:-0/1996 in 0s"; s.words() != want {
			t.Errorf("got %q", s.words())
		}
	})
}

// TestQueueKeepsLargePiece: one that is larger than all there may be is kept if nothing else is.
func TestQueueKeepsLargePiece(t *testing.T) {
	s := &slowSink{gate: make(chan struct{})}
	close(s.gate)
	q := newQueue(s, 4)
	q.put("stdout", time.Now(), []byte("more than four\n"))
	q.close()
	if s.words() != "stdout:more than four\n" {
		t.Errorf("got %q", s.words())
	}
}
