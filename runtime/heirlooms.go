package runtime

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// heirlooms are descriptors that this runtime holds for the keeper: a killed one
// takes its own with it, and the next one gets them back from us. They are
// kept as numbers, so that nothing here waits for them.
type heirlooms struct {
	mu   sync.Mutex
	held map[string]int
}

// holdHeirlooms takes part for as long as there are keepers, over connections of its own.
func (r *Runtime) holdHeirlooms() {
	defer r.heirlooms.close()
	for pause := 20 * time.Millisecond; r.ctx.Err() == nil; pause = min(2*pause, 5*time.Second) {
		if r.receiveHeirlooms(r.ctx) {
			pause = 20 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-r.ctx.Done():
		}
	}
}

// receiveHeirlooms gives back what we hold, then holds what the keeper sends. It
// says whether there was a keeper to talk to.
func (r *Runtime) receiveHeirlooms(ctx context.Context) bool {
	if _, err := r.connect(ctx); err != nil {
		return false
	}
	l, err := dial(ctx, r.layout.Socket())
	if err != nil {
		return false
	}
	defer l.close()
	if l.hello.Version < wire.Heirlooms.Since() {
		select { // an older keeper leaves nothing to others
		case <-l.gone:
		case <-ctx.Done():
		}
		return true
	}
	if err := r.heirlooms.giveBack(ctx, l); err != nil {
		r.logger.Warn("the keeper does not take back what was held for it", "err", err)
	}
	id, ch := l.expect(backlog)
	m, err := wire.New(wire.Heirlooms, id, nil)
	if err != nil || l.conn.Send(m) != nil {
		return false
	}
	announced := map[string]bool{}
	for {
		select {
		case m := <-ch:
			var k wire.KeptBody
			if m.Type != wire.Kept || m.Decode(&k) != nil {
				m.CloseFiles()
				return false
			}
			if k.Name == "" {
				r.heirlooms.retain(announced)
				announced = nil
				continue
			}
			if announced != nil {
				announced[k.Name] = true
			}
			r.heirlooms.change(k, m.Files)
			m.CloseFiles()
		case <-l.gone:
			if len(ch) == 0 {
				return true
			}
		case <-ctx.Done():
			return true
		}
	}
}

// change takes in what the keeper says.
func (h *heirlooms) change(k wire.KeptBody, files []*os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(k.Name)
	if k.Dropped || len(files) != 1 {
		return
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		if dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			h.held[k.Name] = dup
		}
	})
}

func (h *heirlooms) drop(name string) {
	if fd, ok := h.held[name]; ok {
		unix.Close(fd)
		delete(h.held, name)
	}
}

// retain drops what the keeper no longer has.
func (h *heirlooms) retain(names map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.held {
		if !names[name] {
			h.drop(name)
		}
	}
}

func (h *heirlooms) close() { h.retain(nil) }

// giveBack brings everything to a new keeper, which has use for it or not.
func (h *heirlooms) giveBack(ctx context.Context, l *link) error {
	names, files := h.duplicates()
	var errs []error
	for len(names) > 0 {
		n := min(len(names), wire.MaxFds)
		m, err := l.call(ctx, wire.GiveBack, wire.GiveBackRequest{Names: names[:n]}, files[:n]...)
		if err == nil {
			m.CloseFiles()
		}
		for _, f := range files[:n] {
			f.Close()
		}
		errs = append(errs, err)
		names, files = names[n:], files[n:]
	}
	return errors.Join(errs...)
}

func (h *heirlooms) duplicates() (names []string, files []*os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.held {
		names = append(names, name)
	}
	slices.Sort(names)
	for i := 0; i < len(names); {
		dup, err := unix.FcntlInt(uintptr(h.held[names[i]]), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			names = slices.Delete(names, i, i+1)
			continue
		}
		files = append(files, os.NewFile(uintptr(dup), names[i]))
		i++
	}
	return names, files
}
