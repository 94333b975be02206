package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager is the socket of a service manager; what it is told comes through the channel.
func manager(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	notes := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			notes <- string(buf[:n])
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return notes
}

func TestStarting(t *testing.T) {
	notes := manager(t)
	s := &starting{log: slog.New(slog.DiscardHandler)}
	s.progress("looks at images")
	if n := <-notes; n != "EXTEND_TIMEOUT_USEC=90000000\nSTATUS=looks at images" {
		t.Errorf("progress: %q", n)
	}
	s.last = time.Now().Add(time.Hour) // however slow this machine is
	s.progress("looks at images")      // not again so soon
	s.progress("takes over what runs")
	if n := <-notes; !strings.HasSuffix(n, "STATUS=takes over what runs") {
		t.Errorf("progress: %q", n)
	}
	s.ready()
	if n := <-notes; n != "READY=1\nSTATUS=" {
		t.Errorf("ready: %q", n)
	}
	s.progress("too late")
	select {
	case n := <-notes:
		t.Errorf("after ready: %q", n)
	default:
	}
}

// TestWatchdog: systemd hears of us while the loop answers, and only then.
func TestWatchdog(t *testing.T) {
	notes := manager(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watchdog(ctx, slog.New(slog.DiscardHandler), func(context.Context) error { return nil })
	}()
	if n := <-notes; n != "WATCHDOG=1" {
		t.Errorf("alive: %q", n)
	}
	cancel()
	<-ended // it would tell the next manager

	notes = manager(t)
	ctx, cancel = context.WithCancel(t.Context())
	asked := 0
	watchdog(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context) error {
		if asked++; asked == 5 {
			cancel()
		}
		if _, ok := ctx.Deadline(); !ok {
			t.Error("asked without an end")
		}
		return errors.New("stuck")
	})
	select {
	case n := <-notes:
		t.Errorf("stuck: %q", n)
	default:
	}
	t.Setenv("WATCHDOG_USEC", "")
	watchdog(t.Context(), slog.New(slog.DiscardHandler), nil) // nobody watches
}

func TestIsStopping(t *testing.T) {
	for groups, want := range map[string]string{
		"0::/system.slice/wherry.service\n":                                         "wherry.service",
		"12:pids:/system.slice/x.service\n1:name=systemd:/system.slice/w.service\n": "w.service",
		"0::/user.slice/user-0.slice/session-1.scope\n":                             "",
		"": "",
	} {
		if got := ownUnit(groups); got != want {
			t.Errorf("%q: %q, want %q", groups, got, want)
		}
	}
	jobs := "  90 wherry-keeper.service start waiting\n  84 wherry.service restart running\n85 other.service stop running\n"
	if isStopping(jobs, "wherry.service") || isStopping(jobs, "") || !isStopping(jobs, "other.service") || isStopping("No jobs running.\n", "wherry.service") {
		t.Error("a restart is no stop")
	}
}
