package runtime

import (
	"context"
	"time"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// Event is a change the keeper reports. After a reconnect List gives the state
// that the missed events led to.
type Event struct {
	Type   EventType `json:"type"`
	ID     string    `json:"id"`
	Status Status    `json:"status"`
	OOM    *OOM      `json:"oom,omitempty"` // of an EventOOM
}

// EventType names what happened.
type EventType string

// Exit comes once per container, after its output is in the log file.
const (
	EventExit EventType = "exit"
	EventOOM  EventType = "oom" // a process of the group was killed; the container may live on
	EventGap  EventType = "gap" // the keeper was away: call List
)

// Events reports changes until ctx ends. The first event is always EventGap.
// The channel is closed when ctx ends; it reconnects to a new keeper by itself.
func (r *Runtime) Events(ctx context.Context) <-chan Event {
	out := make(chan Event)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(r.ctx, cancel) // Close ends it too
	r.wg.Go(func() {
		defer close(out)
		defer cancel()
		defer stop()
		for pause := 10 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 2*time.Second) {
			if r.receiveEvents(ctx, out) {
				pause = 10 * time.Millisecond
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	})
	return out
}

// receiveEvents passes on what comes over one subscription, on a connection of
// its own so that a slow receiver delays no calls. It says whether there was
// one.
func (r *Runtime) receiveEvents(ctx context.Context, out chan<- Event) bool {
	if _, err := r.connect(ctx); err != nil {
		return false
	}
	l, err := dial(ctx, r.layout.Socket())
	if err != nil {
		return false
	}
	defer l.close()
	id, ch := l.expect(backlog)
	m, err := wire.New(wire.Subscribe, id, nil)
	if err != nil || l.conn.Send(m) != nil {
		return false
	}
	for {
		select {
		case m := <-ch:
			e := Event{Type: EventGap}
			if m.Type == wire.Event && m.Decode(&e) != nil || m.Type == wire.Error {
				return false
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return true
			}
		case <-l.gone:
			if len(ch) == 0 {
				return true
			}
		case <-ctx.Done():
			return true
		}
	}
}

// backlog is how many events wait for the receiver here before they wait in
// the socket, and then at the keeper.
const backlog = 256
