package runtime

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// Upgrade replaces the running keeper by another binary, in place: same
// process, same containers. The new binary first proves on the real state that
// it can take over; if it cannot, the old keeper stays and the error says why.
// One that fails all the same gives way to the old one. Starts under way are waited for, and
// execs go on as if nothing had happened.
func (r *Runtime) Upgrade(ctx context.Context, binary string) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return fmt.Errorf("upgrade keeper: %w", err)
	}
	l, err := r.connect(ctx)
	if err != nil {
		return fmt.Errorf("upgrade keeper: %w", err)
	}
	before := l.hello
	_, err = l.call(ctx, wire.Upgrade, wire.UpgradeRequest{Binary: binary})
	if !keeperGone(err) { // success shows in the end of the connection
		return fmt.Errorf("upgrade keeper: %w", err)
	}
	now, err := r.connect(ctx)
	if err != nil {
		return fmt.Errorf("upgrade keeper: %w", err)
	}
	if now.hello.Refused != "" {
		return fmt.Errorf("upgrade keeper: %s has given way to the old one: %s", binary, now.hello.Refused)
	}
	if now.hello.Instance == before.Instance || now.hello.Pid != before.Pid {
		return fmt.Errorf("upgrade keeper: %w: it was lost over it, another one has taken over", ErrKeeper)
	}
	return nil
}

// StopKeeper ends the keeper if no container runs, else ErrBusy. What it knows
// about ended containers stays on disk for the next one. The Runtime is closed
// with it. A keeper that a service manager runs is left to that. An attempt to
// connect that is under way is waited for, whatever ctx says, for up to 20 seconds.
func (r *Runtime) StopKeeper(ctx context.Context) error {
	l, err := r.endKeeper(ctx)
	if err != nil {
		return err
	}
	r.Close()
	if l == nil {
		return nil
	}
	defer l.close()
	select {
	case <-l.gone:
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
	}
	return nil
}

// endKeeper is StopKeeper but for the wait for the end of l, which is nil if there is none
// to wait for. While it asks, nobody connects: who loses the keeper over it would
// start another one.
func (r *Runtime) endKeeper(ctx context.Context) (l *link, err error) {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	l, err = dial(ctx, r.layout.Socket())
	if err != nil {
		r.disconnect()
		return nil, nil // there is none
	}
	if l.hello.Managed { // it would only be started again: whoever runs the service stops it
		l.close()
		r.disconnect()
		return nil, nil
	}
	if _, err := l.call(ctx, wire.Shutdown, nil); err != nil {
		l.close()
		return nil, err
	}
	r.disconnect()
	return l, nil
}
