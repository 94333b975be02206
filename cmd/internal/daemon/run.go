package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// run is the daemon's life.
func run(ctx context.Context, f flags, version string) error {
	level, err := f.level()
	if err != nil {
		return err
	}
	tuneMemory()
	log := newLogger(level)
	o, err := load(f, version)
	if err != nil {
		return startError(err)
	}
	if os.Geteuid() != 0 {
		return &term.Failure{Code: term.ExitFailed, Err: errors.New("cannot start the daemon: containers need root"), Hint: "sudo wherry daemon"}
	}
	if o.Listener, err = activated(); err != nil {
		return startError(err)
	}
	o.Logger = log
	o.Reload = func() (supervisor.Options, error) {
		next, err := load(f, version)
		next.Logger, next.Listener, next.Reload = o.Logger, o.Listener, o.Reload
		return next, err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := supervisor.New(o)
	if err != nil {
		return startError(err)
	}
	if err := serve(ctx, s, log); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	return nil
}

// serve runs the supervisor and tells systemd about it.
func serve(ctx context.Context, s *supervisor.Supervisor, log *slog.Logger) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-s.Ready():
		}
		log.Info("ready", "pid", os.Getpid())
		notify(log, ready)
		watchdog(ctx, log, func() { s.Units() })
	})
	all.Go(func() { trimMemory(ctx, allocated, debug.FreeOSMemory) })
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	all.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				reload(ctx, s, log)
			}
		}
	})
	all.Go(func() {
		<-ctx.Done()
		notify(log, stopping)
	})
	return s.Run(ctx)
}

func reload(ctx context.Context, s *supervisor.Supervisor, log *slog.Logger) {
	notify(log, reloading())
	defer notify(log, ready)
	r, err := s.Reload(ctx, "SIGHUP")
	if err != nil {
		log.Error("reload", "err", err)
		return
	}
	log.Info("reloaded", "applied", r.Applied, "needs_restart", r.NeedsRestart)
}

// load makes the supervisor's options of defaults, file and flags.
func load(f flags, version string) (supervisor.Options, error) {
	c := defaults(os.Getenv)
	file := f.config
	if file == "" {
		file = DefaultConfig
	}
	err := readConfig(file, &c)
	if f.config == "" && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = f.apply(&c)
	}
	return c.Options(version), err
}

// startError is an error of the start with its exit code and a hint.
func startError(err error) error {
	var given *term.Failure
	if errors.As(err, &given) {
		return err
	}
	out := &term.Failure{Code: term.ExitFailed, Err: fmt.Errorf("cannot start the daemon: %w", err)}
	var mistakes unit.Errors
	switch {
	case errors.As(err, &mistakes):
		out.Code, out.Err = term.ExitUsage, err
	case errors.Is(err, supervisor.ErrBusy):
		out.Hint = "`wherry ctl status` asks the one that runs; a second one needs its own --root, --run-dir, --socket, --bridge and --cgroup-parent"
	}
	return out
}

// newLogger writes to stderr. The journal has its own time stamps.
func newLogger(level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
