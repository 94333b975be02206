package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/runtime/spec"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/doctor"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/apiserver"
	"github.com/wherry-run/wherry/supervisor/internal/exits"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"golang.org/x/sync/singleflight"
)

// Errors that callers tell apart with errors.Is. All but ErrBusy are those of
// package api, so that they mean the same on both sides of the socket.
var (
	ErrNoSuchUnit  = api.ErrNoSuchUnit
	ErrAmbiguous   = api.ErrAmbiguous
	ErrExists      = api.ErrExists
	ErrNotRunning  = api.ErrNotRunning
	ErrInvalid     = api.ErrInvalid
	ErrTimeout     = api.ErrTimeout
	ErrUnavailable = api.ErrUnavailable
	ErrBusy        = errors.New("another daemon owns this root")
)

// Supervisor keeps units running. It is safe for concurrent use; Run must have
// been called for anything to happen.
type Supervisor struct {
	opts      atomic.Pointer[Options]
	paths     paths
	log       *slog.Logger
	locks     []*lock
	store     *state.Store
	events    *event.Log
	exits     *exits.Store
	disk      *image.Store // nil in tests with other images
	img       images
	rt        containers // set by Run, before ready
	net       networks
	users     userRanges
	startedAt time.Time

	inbox chan message
	ready chan struct{}
	// refolder says that the units folder is to be read again.
	refolder chan struct{}
	over     chan struct{} // closed when the loop has ended
	running  atomic.Bool
	died     atomic.Bool // at a fault point

	background sync.WaitGroup // deletes what nobody waits for

	starts   chan struct{} // each container being made holds one
	renewing sync.Mutex    // one upgrade of the keeper at a time

	snap       atomic.Pointer[snapshot]
	notices    notices
	last       ring
	resolving  resolving
	operations operations
	lastGC     atomic.Pointer[api.LastGC]
	beginnings beginnings
	doctor     doctor.Doctor
	looks      singleflight.Group // of the doctor

	sizes    sync.Map // api.Size by the name of a unit that somebody is starting on a terminal
	tidying  tidying
	pressure pressure
	machine  spec.Machine
	early    net.Listener // the API's, if it was opened before its time
	closing  sync.Once
	closed   error
}

// New opens the state and takes the lock on root and run folder. What New has
// opened is closed at the end of Run, or by Close if Run is never called.
func New(o Options) (_ *Supervisor, err error) {
	o = o.withDefaults()
	s := &Supervisor{log: o.Logger, machine: readMachine(), startedAt: time.Now(), inbox: make(chan message, 64), refolder: make(chan struct{}, 1),
		ready: make(chan struct{}), over: make(chan struct{}), starts: make(chan struct{}, startsAtOnce),
		tidying: tidying{kick: make(chan struct{}, 1)}}
	s.opts.Store(&o)
	s.snap.Store(newSnapshot())
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.paths, err = newPaths(o); err != nil {
		return nil, err
	}
	for _, dir := range []string{s.paths.root, s.paths.runDir} {
		l, err := lockFolder(dir)
		if err != nil {
			return nil, err
		}
		s.locks = append(s.locks, l)
	}
	if err := s.paths.closeToOthers(); err != nil {
		return nil, err
	}
	if s.store, err = state.Open(s.paths.state()); err != nil {
		return nil, err
	}
	s.exits = exits.New(s.paths.exits())
	if s.events, err = event.Open(s.paths.events(), event.Options{}); err != nil {
		return nil, err
	}
	if s.img = o.hooks.images; s.img == nil {
		io := imageOptions(o, s.paths)
		io.Holds, io.Progress = s.holds, func() { s.progress("looks at images") }
		if s.disk, err = image.Open(io); err != nil {
			return nil, err
		}
		s.img = s.disk
	}
	return s, nil
}

func imageOptions(o Options, p paths) image.Options {
	return image.Options{Root: p.root, DockerConfig: o.DockerConfig, Logger: o.Logger, Registries: o.Registries, Keychain: o.Keychain,
		Keyless: o.Keyless, Proxy: o.Proxy, Form: o.Layers, Reserve: o.Reserve}
}

// Close frees what New took. After Run it does nothing.
func (s *Supervisor) Close() error {
	s.closing.Do(func() { s.closed = s.close() })
	return s.closed
}

func (s *Supervisor) close() error {
	var errs []error
	s.operations.close()
	if !s.running.Load() { // otherwise Run has waited
		s.await(&s.background)
	}
	if s.rt != nil {
		idle, err := s.leaveKeeper()
		errs = append(errs, err)
		if idle {
			s.leaveNetwork()
		}
	}
	if c, ok := s.net.(interface{ Close() error }); ok {
		errs = append(errs, c.Close())
	}
	if s.events != nil {
		errs = append(errs, s.events.Close())
	}
	if s.store != nil {
		if s.died.Load() {
			errs = append(errs, s.store.Abandon())
		} else {
			errs = append(errs, s.store.Close())
		}
	}
	if s.img != nil {
		errs = append(errs, s.img.Close())
	}
	for _, l := range s.locks {
		l.release()
	}
	return errors.Join(errs...)
}

// leaveKeeper ends the connection, and the keeper if it has nothing to keep.
func (s *Supervisor) leaveKeeper() (idle bool, err error) {
	k, ok := s.rt.(interface{ StopKeeper(context.Context) error })
	if ok && !s.died.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
		defer cancel()
		if k.StopKeeper(ctx) == nil {
			return true, nil
		}
	}
	return false, s.rt.Close()
}

// leaveNetwork takes bridge and table away when no run is left to use them: a
// daemon that is stopped for good leaves the host as it found it.
func (s *Supervisor) leaveNetwork() {
	n, ok := s.net.(interface{ Destroy(context.Context) error })
	if !ok || len(s.net.Leases()) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	if err := n.Destroy(ctx); err != nil {
		s.log.Warn("bridge or table not removed", "err", err)
	}
}

// connect opens what acts on the kernel.
func (s *Supervisor) connect(ctx context.Context) error {
	o := s.opts.Load()
	s.users = s.openUsers(o)
	if s.net = o.hooks.networks; s.net == nil {
		m, err := network.Open(network.Options{Bridge: o.Bridge, Subnet: o.Subnet, Dir: s.paths.leases(), Logger: o.Logger})
		if err != nil {
			return fmt.Errorf("network: %w", err)
		}
		s.net = m
	}
	if s.rt = o.hooks.containers; s.rt == nil {
		r, err := s.openRuntime(ctx, func(ctx context.Context) (*runtime.Runtime, error) {
			return runtime.Open(ctx, runtime.Options{Root: s.paths.root, RunDir: s.paths.runDir, Keeper: o.Keeper,
				CgroupParent: o.CgroupParent, CgroupDriver: o.CgroupDriver, Managed: o.KeeperManaged, Logger: o.Logger})
		})
		if err != nil {
			return fmt.Errorf("keeper: %w", err)
		}
		s.rt = r
	}
	return nil
}

// Run adopts what runs and works until ctx ends; then it closes everything.
// Containers run on unless StopAtExit is set.
func (s *Supervisor) Run(ctx context.Context) (err error) {
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("supervisor: Run was called before")
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	over := sync.OnceFunc(func() { close(s.over) })
	defer over()
	if err := s.connect(ctx); err != nil {
		return err
	}
	s.renewKeeper(ctx)
	// Helpers of the loop and its actions end after it, not with ctx: with
	// StopAtExit there is still work then.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l, err := s.recover(inner)
	if err != nil {
		cancel()
		return err
	}
	l.publish(time.Now()) // or the first callers would hear that there are no units
	l.touchAll()
	ln, err := s.listen()
	if err != nil {
		cancel()
		return err
	}
	var helpers sync.WaitGroup
	failed := make(chan error, 1)
	outer, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	helpers.Go(func() { s.watch(inner) })
	helpers.Go(func() { s.watchFolder(inner) })
	helpers.Go(func() { s.heal(inner) })
	helpers.Go(func() { s.keepTidy(inner) })
	helpers.Go(func() { s.boundLogs(inner) })
	if ln != nil {
		helpers.Go(func() {
			if err := apiserver.Serve(outer, ln, s, s.log); err != nil && outer.Err() == nil {
				failed <- fmt.Errorf("api: %w", err)
				stop(err)
			}
		})
	}
	s.event(api.Event{Type: event.Daemon, Message: "the daemon started", Fields: map[string]any{"pid": os.Getpid(), "version": s.opts.Load().Version}})
	l.run(outer)
	over() // whoever still asks gets no answer, and is waited for below
	if l.died != nil {
		s.died.Store(true)
	} else {
		s.event(api.Event{Type: event.Daemon, Message: "the daemon ends"})
	}
	cancel()
	stop(nil)
	s.operations.close()
	s.await(&l.wg, &helpers, &s.background)
	select {
	case err := <-failed:
		return err
	default:
		return l.died
	}
}

// await waits for everybody, with a limit: one that hangs in the kernel must
// not keep a daemon from ending.
func (s *Supervisor) await(groups ...*sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, g := range groups {
			g.Wait()
		}
	}()
	// Results nobody needs any more: the next daemon finds out by itself.
	limit := time.NewTimer(shutdownLimit)
	defer limit.Stop()
	for {
		select {
		case <-s.inbox:
		case <-done:
			return
		case <-limit.C:
			s.log.Warn("work left behind at the end")
			return
		}
	}
}

// Ready is closed when the state is read, the keeper answers and the API listens.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Images is the store, for the image verbs.
func (s *Supervisor) Images() *image.Store { return s.disk }

// send gives a message to the loop and waits for its reply.
func (s *Supervisor) send(ctx context.Context, m message, reply <-chan error) error {
	select {
	case s.inbox <- m:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.over:
		return ErrUnavailable
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.over:
		return ErrUnavailable
	}
}

// post gives a message to the loop, unless there is none any more.
func (s *Supervisor) post(m message) {
	select {
	case s.inbox <- m:
	case <-s.over:
	}
}

// fault tells whether the daemon dies here. Once dead, nothing more happens.
func (s *Supervisor) fault(at string) bool {
	f := s.opts.Load().hooks.fault
	if f == nil {
		return false
	}
	if s.died.Load() || f(at) {
		s.died.Store(true)
		return true
	}
	return false
}
