package keeper

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// remoteHeir is a runtime that holds duplicates, on a connection that is for nothing else.
type remoteHeir struct {
	mu    sync.Mutex
	queue []heirChange
	wake  chan struct{} // has room for one
}

// heirChange is what an heir is to be told; fd is -1 for what is dropped.
type heirChange struct {
	name string
	fd   int
}

func (r *remoteHeir) kept(name string, fd int) { r.push(heirChange{name, fd}) }
func (r *remoteHeir) dropped(name string)      { r.push(heirChange{name, -1}) }

func (r *remoteHeir) push(c heirChange) {
	r.mu.Lock()
	r.queue = append(r.queue, c)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// pop takes everything that waits.
func (r *remoteHeir) pop() []heirChange {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queue
	r.queue = nil
	return q
}

// serve tells the runtime of every change until ctx ends, or the connection
// does. All that is held already comes first, then the reply.
func (h *heirlooms) serve(ctx context.Context, conn *wire.Conn, id uint32) {
	r := &remoteHeir{wake: make(chan struct{}, 1)}
	h.appoint(r)
	defer conn.Close()
	defer func() {
		h.dismiss(r)
		closeChanges(r.pop())
	}()
	if r.send(conn, id) != nil || sendKept(conn, id, wire.KeptBody{}, nil) != nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			if r.send(conn, id) != nil {
				return
			}
		}
	}
}

// send sends what waits. It closes the descriptors in any case.
func (r *remoteHeir) send(conn *wire.Conn, id uint32) error {
	changes := r.pop()
	for i, c := range changes {
		var files []*os.File
		if c.fd >= 0 {
			files = []*os.File{os.NewFile(uintptr(c.fd), c.name)}
		}
		err := sendKept(conn, id, wire.KeptBody{Name: c.name, Dropped: c.fd < 0}, files)
		if err != nil {
			closeChanges(changes[i+1:])
			return err
		}
	}
	return nil
}

func sendKept(conn *wire.Conn, id uint32, body wire.KeptBody, files []*os.File) error {
	m, err := wire.New(wire.Kept, id, body)
	if err != nil {
		return err
	}
	m.Files = files
	defer m.CloseFiles()
	return conn.Send(m)
}

func closeChanges(changes []heirChange) {
	for _, c := range changes {
		if c.fd >= 0 {
			unix.Close(c.fd)
		}
	}
}

// accept takes back what a runtime has held. What belongs to nothing that we
// know is closed.
func (k *Keeper) acceptHeirlooms(m *wire.Message) error {
	r, err := decode[wire.GiveBackRequest](m)
	if err != nil {
		return err
	}
	if len(r.Names) != len(m.Files) {
		return fmt.Errorf("give back: %w: %d names for %d descriptors", wire.ErrProtocol, len(r.Names), len(m.Files))
	}
	for i, name := range r.Names {
		if !k.wantsHeirloom(name) {
			continue
		}
		if fd, err := dupOf(m.Files[i]); err == nil {
			k.heirlooms.giveBack(name, fd, nil)
		}
	}
	return nil
}

// wantsHeirloom says whether name belongs to a container that has not settled and still needs it, or to a run.
// A run's namespaces may come before any container of it: nobody knows it then
// but he who has made them.
func (k *Keeper) wantsHeirloom(name string) bool {
	kind, owner := heirParts(name)
	if kind == "" || owner == "" || len(name) > maxHeirName {
		return false
	}
	if isRunHeirloom(kind) {
		return true
	}
	c, err := k.find(execOwner(owner))
	if err != nil {
		return false
	}
	select {
	case <-c.settled:
		return false
	default:
	}
	switch kind { // it may have been dropped while nobody was there to be told
	case heirStdin:
		return !c.snapshot().InputClosed
	case heirExec:
		return k.execs.has(owner)
	}
	return true
}
