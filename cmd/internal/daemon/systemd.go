package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
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

// How often systemd hears that a start gets on, and how much longer each such word lets it take.
const (
	extendEvery = 5 * time.Second
	extendBy    = 90 * time.Second
)

// starting tells systemd that a long start gets on, and what it is at. A start that hangs is silent, and systemd begins another.
type starting struct {
	log *slog.Logger

	mu   sync.Mutex
	last time.Time
	what string
	done bool
}

func (s *starting) progress(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || what == s.what && time.Since(s.last) < extendEvery {
		return
	}
	s.what, s.last = what, time.Now()
	notify(s.log, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=%s", extendBy.Microseconds(), what))
}

// ready ends the start. Nothing is extended after that.
func (s *starting) ready() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	notify(s.log, ready+"\nSTATUS=")
}

// watchdog tells systemd that we are alive as long as alive says so, until ctx
// ends.
func watchdog(ctx context.Context, log *slog.Logger, alive func(context.Context) error) {
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
		}
		limited, cancel := context.WithTimeout(ctx, every/3)
		err := alive(limited)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("the daemon is stuck: if it stays so, systemd starts it again", "err", err)
		default:
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
