package keeper

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// An heirloom is a descriptor that must outlive the keeper, as nothing on disk
// leads back to what it stands for: a process's pidfd (how a process ended is
// told to whoever held it before), a terminal's master (which hangs up with its last
// descriptor), the writing end of an input, a namespace that nobody is in yet.
// Others hold duplicates for us, in whose place the next keeper finds its own:
// the connected runtimes (heirlooms_wire.go), systemd's store (heirlooms_store.go), and over an
// upgrade this process itself.
//
// How to use it: keep right after the descriptor came into being; take when
// adopting; drop when it is no longer needed. Those of a container are dropped
// with the container in any case.
type heirlooms struct {
	mu      sync.Mutex
	held    map[string]int             // descriptors of our own, by name
	byOwner map[string]map[string]bool // names of what is held, by container or run
	heirs   map[heir]struct{}
	more    chan struct{} // closed, and made anew, when others return something
	store   *storeHeir    // the heir that is a service manager; nil: there is none
}

// Kinds of heirlooms. The owner of those that begin with "ns-" is a run, else a container.
const (
	heirPidfd = "pidfd"
	heirTTY   = "tty"    // a terminal's master
	heirStdin = "stdin"  // the writing end of an input
	heirOut   = "stdout" // a pipe that no init holds until it is read
	heirErr   = "stderr"
	heirNet   = "ns-net"
	heirUser  = "ns-user"
	heirIPC   = "ns-ipc"
	heirUTS   = "ns-uts"
	heirPID   = "ns-pid"
)

// heir is somebody who holds duplicates. Neither method waits; kept gets a descriptor of
// its own, which it closes.
type heir interface {
	kept(name string, fd int)
	dropped(name string)
}

func newHeirlooms() *heirlooms {
	return &heirlooms{held: map[string]int{}, byOwner: map[string]map[string]bool{}, heirs: map[heir]struct{}{}, more: make(chan struct{})}
}

// heirName is how an heirloom is called everywhere, also in systemd's store,
// which allows no colon.
func heirName(kind, owner string) string { return kind + "/" + owner }

func heirParts(name string) (kind, owner string) {
	kind, owner, _ = strings.Cut(name, "/")
	return kind, owner
}

// keep has the heirs hold a duplicate of f, which stays the caller's. What was
// kept under the same name is dropped.
func (h *heirlooms) keep(kind, owner string, f *os.File) error {
	fd, err := dupOf(f)
	if err != nil {
		return fmt.Errorf("keep %s of %s: %w", kind, owner, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put(heirName(kind, owner), fd, nil)
	return nil
}

// put takes fd over, and tells all heirs but from, who gave it.
func (h *heirlooms) put(name string, fd int, from heir) {
	if old, ok := h.held[name]; ok {
		unix.Close(old)
		h.each(from, func(x heir) { x.dropped(name) })
	}
	h.held[name] = fd
	of := heirOwner(name)
	if h.byOwner[of] == nil {
		h.byOwner[of] = map[string]bool{}
	}
	h.byOwner[of][name] = true
	h.each(from, func(x heir) { give(x, name, fd) })
}

func (h *heirlooms) each(but heir, f func(heir)) {
	for x := range h.heirs {
		if x != but {
			f(x)
		}
	}
}

func give(x heir, name string, fd int) {
	if dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
		x.kept(name, dup)
	}
}

// drop lets go of an heirloom everywhere. One that is not there is no error.
func (h *heirlooms) drop(kind, owner string) { h.dropName(heirName(kind, owner)) }

func (h *heirlooms) dropName(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if fd, ok := h.held[name]; ok {
		unix.Close(fd)
		delete(h.held, name)
		of := heirOwner(name)
		if delete(h.byOwner[of], name); len(h.byOwner[of]) == 0 {
			delete(h.byOwner, of)
		}
		h.each(nil, func(x heir) { x.dropped(name) })
	}
}

// dropAll lets go of everything of a container, and of what was exec'd in it, or of a run.
func (h *heirlooms) dropAll(owner string) {
	h.mu.Lock()
	names := slices.Collect(maps.Keys(h.byOwner[owner]))
	h.mu.Unlock()
	for _, name := range names {
		h.dropName(name)
	}
}

func (h *heirlooms) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.held))
}

// heirOwner is the container or run that a name belongs to.
func heirOwner(name string) string {
	_, owner := heirParts(name)
	return execOwner(owner)
}

// take returns a duplicate of what is kept, the caller's to close; nil if there
// is none. It stays kept.
func (h *heirlooms) take(kind, owner string) *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := heirName(kind, owner)
	fd, ok := h.held[name]
	if !ok {
		return nil
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(dup), name)
}

// await is take for somebody who can wait for it to come back: a runtime brings
// what it holds only after the new keeper has adopted the containers. nil if
// ctx ends first.
func (h *heirlooms) await(ctx context.Context, kind, owner string) *os.File {
	for {
		h.mu.Lock()
		more := h.more
		h.mu.Unlock()
		if f := h.take(kind, owner); f != nil {
			return f
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// giveBack takes over what another held for us, unless it is there already.
func (h *heirlooms) giveBack(name string, fd int, from heir) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.held[name]; ok {
		unix.Close(fd)
		return
	}
	h.put(name, fd, from)
	close(h.more)
	h.more = make(chan struct{})
}

// appoint makes x an heir of all that is held now and comes later.
func (h *heirlooms) appoint(x heir) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heirs[x] = struct{}{}
	for name, fd := range h.held {
		give(x, name, fd)
	}
}

func (h *heirlooms) dismiss(x heir) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.heirs, x)
}

// dupOf leaves f's mode of blocking alone, which File.Fd would not.
func dupOf(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	dup := -1
	var derr error
	if err := raw.Control(func(fd uintptr) { dup, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return -1, err
	}
	return dup, derr
}
