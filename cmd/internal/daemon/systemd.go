package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// What systemd is told. Without systemd, notify does nothing.
const (
	ready    = daemon.SdNotifyReady
	stopping = daemon.SdNotifyStopping
)

// reloading needs the time of the clock that systemd compares with
// (Type=notify-reload).
func reloading() string {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, t.Nano()/1000)
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("notify systemd", "err", err)
	}
}

// watchdog tells systemd that we are alive as long as alive returns, until ctx
// ends.
func watchdog(ctx context.Context, log *slog.Logger, alive func()) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog", "err", err)
	}
	if every == 0 {
		return
	}
	t := time.NewTicker(every / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			alive()
			notify(log, daemon.SdNotifyWatchdog)
		}
	}
}

// activated is the socket that systemd listens on for us; nil without one.
func activated() (net.Listener, error) {
	all, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("socket activation: %w", err)
	}
	var first net.Listener
	for _, l := range all {
		switch {
		case l == nil: // not a stream socket
		case first == nil:
			first = l
		default:
			return nil, fmt.Errorf("socket activation: want one socket, not %d", len(all))
		}
	}
	return first, nil
}
