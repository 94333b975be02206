package supervisor

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/internal/apiserver"
)

// keeperService is what runs a keeper that is managed.
const keeperService = "wherry-keeper.service"

// errNoKeeper is what everybody hears who asks for something while a managed keeper does not run.
var errNoKeeper = &api.Error{Code: api.CodeUnavailable,
	Message: "the daemon waits for its keeper: " + keeperService + " does not run; containers do",
	Hint:    "sudo systemctl start wherry-keeper; `systemctl status wherry-keeper` says why it does not run"}

// sayAgain is how often the log repeats what is being waited for.
const sayAgain = time.Minute

// openRuntime connects to the keeper. One that a service manager should run is waited for: a daemon that gave up would only be started again, and
// find no keeper either. The API says so meanwhile.
func (s *Supervisor) openRuntime(ctx context.Context, open func(context.Context) (*runtime.Runtime, error)) (*runtime.Runtime, error) {
	var refusing sync.WaitGroup
	refused, stop := context.WithCancel(ctx)
	defer refusing.Wait()
	defer stop()
	var said time.Time
	for {
		r, err := open(ctx)
		if !errors.Is(err, runtime.ErrNotStarted) {
			return r, err
		}
		if said.IsZero() {
			if s.early, err = s.listen(); err != nil {
				return nil, err
			}
			if s.early != nil {
				refusing.Go(func() { apiserver.Refuse(refused, s.early, errNoKeeper) })
			}
		}
		if time.Since(said) > sayAgain {
			said = time.Now()
			s.log.Error(errNoKeeper.Message, "hint", errNoKeeper.Hint)
		}
		s.progress("waits for " + keeperService)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// keeperAway is what to say about a managed keeper that has gone.
func (s *Supervisor) keeperAway() []string {
	if !s.opts.Load().KeeperManaged || s.rt.KeeperPid() != 0 {
		return nil
	}
	return []string{keeperService + " does not run: containers run on, but nothing can be started or stopped, and their output waits: " + errNoKeeper.Hint}
}

// progress tells whoever waits for a start, or for an end, that it gets on.
func (s *Supervisor) progress(what string) {
	if f := s.opts.Load().Progress; f != nil {
		f(what)
	}
}

// alive is a question to the loop.
type alive struct{ reply chan<- error }

func (a alive) handle(*loop) { a.reply <- nil }

// Alive asks the loop, which decides everything, for a sign of life. An error says that none came before ctx ended, or that Run has.
func (s *Supervisor) Alive(ctx context.Context) error {
	reply := make(chan error, 1)
	return s.send(ctx, alive{reply}, reply)
}
