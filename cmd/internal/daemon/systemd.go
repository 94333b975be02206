package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
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
	log    *slog.Logger
	socket string // unit of the socket that we were given

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

// activated is the socket that systemd listens on for us, and the name of its unit; nil without one.
func activated() (l net.Listener, unit string, err error) {
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") // gone after the next call
	all, err := activation.Listeners()
	if err != nil {
		return nil, "", fmt.Errorf("socket activation: %w", err)
	}
	for i, next := range all {
		switch {
		case next == nil: // not a stream socket
		case l != nil:
			return nil, "", fmt.Errorf("socket activation: want one socket, not %d", len(all))
		default:
			l = next
			if i < len(names) && strings.HasSuffix(names[i], ".socket") {
				unit = names[i]
			}
		}
	}
	return l, unit, nil
}

// stopSocket has systemd stop the socket too if somebody is stopping this service, and not restarting it: whoever stops a daemon does not want
// the next call to start it again. systemd has no word for that in a unit.
func stopSocket(log *slog.Logger, socket string) {
	if socket == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	groups, err := os.ReadFile("/proc/self/cgroup")
	var jobs []byte
	if err == nil {
		jobs, err = exec.CommandContext(ctx, "systemctl", "list-jobs", "--no-legend", "--plain").Output()
	}
	if err == nil && isStopping(string(jobs), ownUnit(string(groups))) {
		err = exec.CommandContext(ctx, "systemctl", "stop", "--no-block", socket).Run()
	}
	if err != nil {
		log.Warn("if the daemon was to stop, its socket stays: the next call starts it again", "socket", socket, "err", err)
	}
}

// ownUnit is the service that a process with these control groups belongs to (cgroups(7)); empty: none.
func ownUnit(groups string) string {
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (f[1] == "" || f[1] == "name=systemd") {
			for _, part := range strings.Split(f[2], "/") {
				if strings.HasSuffix(part, ".service") {
					return part
				}
			}
		}
	}
	return ""
}

// isStopping looks for the unit among the jobs that systemctl lists: "84 wherry.service stop running".
func isStopping(jobs, unit string) bool {
	for line := range strings.Lines(jobs) {
		if f := strings.Fields(line); len(f) >= 3 && f[1] == unit && f[2] == "stop" {
			return true
		}
	}
	return false
}
