package keeper

import (
	"context"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// backlog is how many events a subscriber may be behind. One that is further
// behind loses its connection, and asks for the whole list when it is back.
const backlog = 1024

type subscriber struct{ events chan runtime.Event }

// subscribe sends events on conn until ctx ends.
func (k *Keeper) subscribe(ctx context.Context, conn *wire.Conn, id uint32) {
	s := &subscriber{events: make(chan runtime.Event, backlog)}
	k.mu.Lock()
	k.subs[s] = struct{}{}
	k.mu.Unlock()
	defer k.unsubscribe(s)
	defer conn.Close()
	// The answer tells the client that from now on it misses nothing.
	if m, err := wire.New(wire.Reply, id, nil); err != nil || conn.Send(m) != nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-s.events:
			if !ok {
				return
			}
			m, err := wire.New(wire.Event, id, e)
			if err != nil || conn.Send(m) != nil {
				return
			}
		}
	}
}

func (k *Keeper) unsubscribe(s *subscriber) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.subs, s)
}

// publish never waits for a subscriber.
func (k *Keeper) publish(e runtime.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for s := range k.subs {
		select {
		case s.events <- e:
		default:
			delete(k.subs, s)
			close(s.events)
		}
	}
}
