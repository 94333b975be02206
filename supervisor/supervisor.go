package supervisor

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// Options configure a Supervisor. The zero value of every field has a
// documented meaning.
type Options struct {
	Root         string              // durable state; empty: /var/lib/wherry
	RunDir       string              // sockets and run state; empty: /run/wherry
	Units        string              // folder of unit files; empty: none is watched
	NoAutoApply  bool                // files of Units stay pending until somebody applies them
	Socket       string              // path of the API's Unix socket; empty: no API, unless Listener is set
	Listener     net.Listener        // the API listens here instead
	SocketGroup  string              // group that may read the API; empty: "wherry" if it exists
	Keeper       string              // path of wherry-keeper; empty: beside our own binary, then /usr/lib/wherry
	CgroupParent string              // empty: "wherry"
	Bridge       string              // empty: "wherry0"
	Subnet       netip.Prefix        // zero: chosen
	Registries   map[string]Registry // by host
	DockerConfig string              // path of a Docker config.json; empty: none
	Logging      unit.Logging        // defaults of units
	Version      string              // shown by status
	Logger       *slog.Logger        // nil: discards
	StopAtExit   bool                // stop all containers when Run ends; otherwise they run on

	// Reload gives new Options for SIGHUP and `ctl reload`; nil: reload is an error.
	Reload func() (Options, error)
}

// Registry is how one registry host is spoken to.
type Registry struct {
	Insecure bool // plain HTTP
}

// Errors that callers tell apart with errors.Is.
var (
	ErrNoSuchUnit = errors.New("no such unit")
	ErrAmbiguous  = errors.New("ambiguous name")
	ErrExists     = errors.New("unit already exists")
	ErrNotRunning = errors.New("not running")
	ErrInvalid    = errors.New("invalid")
	ErrBusy       = errors.New("another daemon owns this root")
)

// Supervisor keeps units running. It is safe for concurrent use; Run must have
// been called for anything to happen.
type Supervisor struct{}

// New opens the state and takes the lock on root and run folder.
func New(o Options) (*Supervisor, error) { return nil, errors.ErrUnsupported }

// Run adopts what runs and works until ctx ends; then it closes everything.
// Containers run on unless StopAtExit is set.
func (s *Supervisor) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Ready is closed when the state is read, the keeper answers and the API listens.
func (s *Supervisor) Ready() <-chan struct{} { return nil }

// Info describes the daemon.
func (s *Supervisor) Info() api.Info { return api.Info{} }

// Apply makes units what the files say, all or none. by names who asked.
func (s *Supervisor) Apply(ctx context.Context, r api.ApplyRequest, by string) (api.ApplyResult, error) {
	return api.ApplyResult{}, errors.ErrUnsupported
}

// Units returns the current snapshot, sorted by name. It never blocks on work.
func (s *Supervisor) Units() []api.Unit { return nil }

// Unit returns one unit by its exact name.
func (s *Supervisor) Unit(ctx context.Context, name string) (api.UnitDetail, error) {
	return api.UnitDetail{}, errors.ErrUnsupported
}

// Match resolves names, unique prefixes and globs to unit names.
func (s *Supervisor) Match(patterns []string) ([]string, error) { return nil, errors.ErrUnsupported }

// Start, Stop, Restart and Remove change the intent and, unless NoWait, wait
// for the effect. The result is the units acted on.
func (s *Supervisor) Start(ctx context.Context, r api.ActRequest, by string) ([]string, error) {
	return nil, errors.ErrUnsupported
}
func (s *Supervisor) Stop(ctx context.Context, r api.ActRequest, by string) ([]string, error) {
	return nil, errors.ErrUnsupported
}
func (s *Supervisor) Restart(ctx context.Context, r api.ActRequest, by string) ([]string, error) {
	return nil, errors.ErrUnsupported
}
func (s *Supervisor) Remove(ctx context.Context, r api.ActRequest, by string) ([]string, error) {
	return nil, errors.ErrUnsupported
}

// RunUnit creates the unit of a `ctl run` (name made up if empty; ErrExists if
// taken) and returns when its first run has started, or with the error of the
// failed start (then nothing of the unit is left). The image is pulled with progress reported.
func (s *Supervisor) RunUnit(ctx context.Context, r api.RunRequest, by string, progress func(image.Progress)) (name string, err error) {
	return "", errors.ErrUnsupported
}

// WaitExit blocks until the unit's first instance has ended for good (no
// restart will follow) and tells how; with anyExit, until its next end.
func (s *Supervisor) WaitExit(ctx context.Context, name string) (api.Exit, error) {
	return api.Exit{}, errors.ErrUnsupported
}

// WaitState blocks until every named unit is in the state ("running",
// "stopped", ...) or cannot reach it any more.
func (s *Supervisor) WaitState(ctx context.Context, names []string, state string) error {
	return errors.ErrUnsupported
}

// Exec runs a process in a running instance of the target with these files.
func (s *Supervisor) Exec(ctx context.Context, r api.ExecRequest, by string, stdin, stdout, stderr *os.File) (api.Exit, error) {
	return api.Exit{}, errors.ErrUnsupported
}

// Logs yields a target's output, several instances merged by time. Follow ends
// when the target is removed or has ended for good.
func (s *Supervisor) Logs(ctx context.Context, r api.LogsRequest) iter.Seq2[api.LogLine, error] {
	return func(yield func(api.LogLine, error) bool) { yield(api.LogLine{}, errors.ErrUnsupported) }
}

// Events yields stored events after seq, then, with follow, new ones as they come.
func (s *Supervisor) Events(ctx context.Context, since uint64, follow bool) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) { yield(api.Event{}, errors.ErrUnsupported) }
}

// Images is the store, for the image verbs.
func (s *Supervisor) Images() *image.Store { return nil }

// Reload reads the configuration again.
func (s *Supervisor) Reload(ctx context.Context, by string) (api.ReloadResult, error) {
	return api.ReloadResult{}, errors.ErrUnsupported
}
