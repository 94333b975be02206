package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/image/auth/ecr"
	"github.com/wherry-run/wherry/image/keyless"
	"github.com/wherry-run/wherry/runtime"
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
	if err := keepInherited(); err != nil {
		log.Warn("the keeper gets what this process has inherited", "err", err)
	}
	o, warnings, err := load(f, version)
	if err != nil {
		return startError(err)
	}
	for _, w := range warnings {
		log.Warn("configuration", "err", w)
	}
	if os.Geteuid() != 0 {
		return &term.Failure{Code: term.ExitFailed, Err: errors.New("cannot start the daemon: containers need root"), Hint: "sudo wherry daemon"}
	}
	start := &starting{log: log}
	if o.Listener, start.socket, err = activated(); err != nil {
		return startError(err)
	}
	o.Logger = log
	o.Progress = start.progress
	connect(&o)
	o.Reload = func() (supervisor.Options, error) {
		next, err := reload(f, version)
		next.Logger, next.Listener, next.Reload, next.Progress = o.Logger, o.Listener, o.Reload, o.Progress
		next.Keychain, next.Keyless, next.Proxy = o.Keychain, o.Keyless, o.Proxy
		return next, err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := supervisor.New(o)
	if err != nil {
		return startError(err)
	}
	if err := serve(ctx, s, start); err != nil {
		return &term.Failure{Code: term.ExitFailed, Err: fmt.Errorf("daemon: %w", err), Hint: doctorHint}
	}
	return nil
}

// doctorHint is for errors that are about the host.
const doctorHint = "`wherry ctl doctor --local` looks for what is wrong with this host"

// serve runs the supervisor and tells systemd about it.
func serve(ctx context.Context, s *supervisor.Supervisor, start *starting) error {
	log := start.log
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
		start.ready()
		watchdog(ctx, log, s.Alive)
	})
	all.Go(func() { reapOrphans(ctx) })
	all.Go(func() { trimMemory(ctx, allocated, runtime.TrimMemory) })
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	all.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				reloadNow(ctx, s, log)
			}
		}
	})
	all.Go(func() {
		<-ctx.Done()
		notify(log, stopping)
		stopSocket(log, start.socket)
	})
	return s.Run(ctx)
}

func reloadNow(ctx context.Context, s *supervisor.Supervisor, log *slog.Logger) {
	notify(log, reloading())
	defer notify(log, ready)
	r, err := s.Reload(ctx, "SIGHUP")
	if err != nil {
		log.Error("reload", "err", err)
		return
	}
	log.Info("reloaded", "applied", r.Applied, "needs_restart", r.NeedsRestart)
}

// connect adds what a library does not choose for its embedder: the programs that
// speak to AWS and that judge certificates, and the environment's proxy.
func connect(o *supervisor.Options) {
	o.Keychain = ecr.New(ecr.Options{Logger: o.Logger, Fetch: fetchECR(o.Logger)})
	o.Proxy = http.ProxyFromEnvironment
	if path := beside("wherry-verify"); path != "" {
		o.Keyless = keyless.Command(path)
	}
}

// fetchECR looks for its program each time: a package may bring it later.
func fetchECR(log *slog.Logger) ecr.Fetch {
	return func(ctx context.Context, host string) (ecr.Token, error) {
		path := beside("wherry-ecr")
		if path == "" {
			return ecr.Token{}, errors.New("wherry-ecr is neither beside wherry nor in /usr/lib/wherry")
		}
		return ecr.Command(path, log)(ctx, host)
	}
}

// beside finds another program of ours: in the folder of this one, then where
// packages put them. Empty: nowhere.
func beside(name string) string {
	folders := []string{"/usr/lib/wherry"}
	if own, err := os.Executable(); err == nil {
		folders = append([]string{filepath.Dir(own)}, folders...)
	}
	for _, dir := range folders {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// load makes the supervisor's options of defaults, file and flags. Warnings are
// Config.Warnings.
func load(f flags, version string) (o supervisor.Options, warnings unit.Errors, err error) {
	c := defaults(os.Getenv)
	file := f.config
	if file == "" {
		file = DefaultConfig
	}
	err = readConfig(file, &c)
	if f.config == "" && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = f.apply(&c)
	}
	o = c.Options(version)
	o.Config = file
	return o, c.Warnings, err
}

// reload is load for somebody who stands by and can set right what is only a
// warning at a start.
func reload(f flags, version string) (supervisor.Options, error) {
	o, warnings, err := load(f, version)
	if err == nil && len(warnings) > 0 {
		err = warnings
	}
	return o, err
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
	default:
		out.Hint = doctorHint
	}
	return out
}
