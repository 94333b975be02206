package keeper

import (
	"context"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// someHeir writes down what it gets.
type someHeir struct {
	mu  sync.Mutex
	fds map[string]int
	log []string
}

func (s *someHeir) kept(name string, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fds[name] = fd
	s.log = append(s.log, "+"+name)
}

func (s *someHeir) dropped(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unix.Close(s.fds[name])
	delete(s.fds, name)
	s.log = append(s.log, "-"+name)
}

func testPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestHeirlooms(t *testing.T) {
	h := newHeirlooms()
	early, late := &someHeir{fds: map[string]int{}}, &someHeir{fds: map[string]int{}}
	h.appoint(early)
	r, w := testPipe(t)
	if err := h.keep(heirStdin, "a.app", w); err != nil {
		t.Fatal(err)
	}
	if err := h.keep(heirPidfd, "a.app", w); err != nil {
		t.Fatal(err)
	}
	if err := h.keep(heirNet, "b", w); err != nil {
		t.Fatal(err)
	}
	h.appoint(late)
	if len(late.fds) != 3 {
		t.Errorf("an heir that came late holds %v", late.fds)
	}
	f := h.take(heirStdin, "a.app")
	if f == nil || h.take(heirTTY, "a.app") != nil {
		t.Fatalf("took %v", f)
	}
	f.WriteString("x")
	f.Close()
	b := make([]byte, 1)
	if _, err := r.Read(b); err != nil || b[0] != 'x' {
		t.Errorf("read %q, %v", b, err)
	}
	h.dropAll("a.app")
	h.dropAll("a.app")
	h.dismiss(late)
	h.drop(heirNet, "b")
	if names := h.names(); len(names) != 0 {
		t.Errorf("still held: %v", names)
	}
	slices.Sort(early.log[3:5])
	want := []string{"+stdin/a.app", "+pidfd/a.app", "+ns-net/b", "-pidfd/a.app", "-stdin/a.app", "-ns-net/b"}
	if !reflect.DeepEqual(early.log, want) {
		t.Errorf("told %v, want %v", early.log, want)
	}
	if len(late.fds) != 1 {
		t.Errorf("a dismissed heir was told: %v", late.fds)
	}
}

// TestHeirloomReturns: who waits for an heirloom gets it when somebody brings it back.
func TestHeirloomReturns(t *testing.T) {
	h := newHeirlooms()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan *os.File)
	for range 2 {
		go func() { got <- h.await(ctx, heirPidfd, "a.app") }()
	}
	_, w := testPipe(t)
	for _, name := range []string{"tty/a.app", "pidfd/a.app", "pidfd/a.app"} {
		fd, err := dupOf(w)
		if err != nil {
			t.Fatal(err)
		}
		h.giveBack(name, fd, nil)
	}
	for range 2 {
		f := <-got
		if f == nil {
			t.Fatal("nothing came back")
		}
		f.Close()
	}
	cancel()
	if f := h.await(ctx, heirUTS, "a"); f != nil {
		t.Error("something came back out of nothing")
	}
}

// TestDropAllOfOne: what others keep is not touched, nor looked at.
func TestDropAllOfOne(t *testing.T) {
	h := newHeirlooms()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, owner := range []string{"a-1.app", execOwnerName("a-1.app", "key"), "a-1.application", "a-1"} {
		if err := h.keep(heirPidfd, owner, f); err != nil {
			t.Fatal(err)
		}
	}
	h.dropAll("a-1.app")
	h.dropAll("a-1.app") // twice does no harm
	left := h.names()
	slices.Sort(left)
	if want := []string{"pidfd/a-1", "pidfd/a-1.application"}; !slices.Equal(left, want) || len(h.byOwner) != 2 {
		t.Errorf("left %s, want %s; books of %d", left, want, len(h.byOwner))
	}
	h.dropAll("a-1")
	h.dropAll("a-1.application")
	if len(h.held)+len(h.byOwner) != 0 {
		t.Errorf("left: %v %v", h.held, h.byOwner)
	}
}

// TestNotWantedBack: what was let go of while its holder could not be told is not taken back.
func TestNotWantedBack(t *testing.T) {
	const open, closed = "web.1-aaaa.open", "web.1-aaaa.closed"
	k := &Keeper{heirlooms: newHeirlooms(), containers: map[string]*container{
		open:   newContainer(state{Status: runtime.Status{ID: open}, Input: true}),
		closed: newContainer(state{Status: runtime.Status{ID: closed}, Input: true, InputClosed: true}),
	}}
	k.execs.add(open, "known")
	names := []string{
		"stdin/" + open, "stdin/" + closed, "exec/" + execOwnerName(open, "known"), "exec/" + execOwnerName(open, "over"),
		"exec/" + execOwnerName(closed, "known"), "pidfd/" + closed, "pidfd/web.1-aaaa.none",
	}
	m, err := wire.New(wire.GiveBack, 1, wire.GiveBackRequest{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	for range names {
		r, _ := testPipe(t)
		m.Files = append(m.Files, r)
	}
	if err := k.acceptHeirlooms(m); err != nil {
		t.Fatal(err)
	}
	got := k.heirlooms.names()
	slices.Sort(got)
	want := []string{"exec/" + execOwnerName(open, "known"), "pidfd/" + closed, "stdin/" + open}
	if !slices.Equal(got, want) {
		t.Errorf("taken back: %v, want %v", got, want)
	}
	for _, name := range got {
		k.heirlooms.dropName(name)
	}
}
