package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"sync"
	"time"

	"github.com/wherry-run/wherry/runtime/internal/bundle"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// Options configure a Runtime.
type Options struct {
	Root         string       // durable state, runs/ and logs/ below it; required
	RunDir       string       // the keeper's socket, pipes and state (tmpfs); required
	Keeper       string       // path of wherry-keeper; empty: beside our own binary, then /usr/lib/wherry
	CgroupParent string       // the group all containers stand under; empty: "wherry"
	CgroupDriver string       // "cgroupfs" or "systemd"; empty: cgroupfs
	Managed      bool         // a service manager runs the keeper: it is awaited, never started
	Logger       *slog.Logger // nil: discards
}

// Runtime talks to the keeper. It is safe for concurrent use.
type Runtime struct {
	options Options
	layout  bundle.Layout
	logger  *slog.Logger
	ctx     context.Context // ends with Close; for reconnecting, which belongs to no call
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	heirlooms heirlooms // what we hold for the keeper

	connecting sync.Mutex // one attempt to connect or launch at a time

	mu      sync.Mutex
	link    *link // nil while the keeper is away
	managed bool  // a service manager has run the last one
	opened  bool
}

// Open connects to the keeper in RunDir and starts it if nobody answers. One that is managed and does not run is ErrNotStarted.
func Open(ctx context.Context, o Options) (*Runtime, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CgroupParent == "" {
		o.CgroupParent = "wherry"
	}
	if path.Clean("/"+o.CgroupParent) == "/" {
		return nil, errors.New("open runtime: cgroup parent: the root group cannot be it")
	}
	if err := CheckCgroupDriver(o.CgroupDriver); err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	l, err := bundle.New(o.Root, o.RunDir)
	if err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	o.Root, o.RunDir = l.Root, l.RunDir
	r := &Runtime{options: o, layout: l, logger: o.Logger, heirlooms: heirlooms{held: map[string]int{}}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if _, err := r.connect(ctx); err != nil {
		r.cancel()
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	r.mu.Lock()
	r.opened = true
	r.mu.Unlock()
	r.wg.Go(r.holdHeirlooms)
	return r, nil
}

// Close disconnects. Containers run on, and so does the keeper; StopKeeper
// ends one without containers.
func (r *Runtime) Close() error {
	r.disconnect()
	r.wg.Wait()
	return nil
}

// disconnect ends the connection, and makes others impossible from now on.
func (r *Runtime) disconnect() {
	r.mu.Lock()
	l := r.link
	r.link = nil
	r.cancel() // under the lock: connect looks there whether it may keep a link
	r.mu.Unlock()
	if l != nil {
		l.close()
	}
}

// KeeperPid is the keeper's process id, 0 when it is away.
func (r *Runtime) KeeperPid() int {
	if l := r.current(); l != nil {
		return l.hello.Pid
	}
	return 0
}

// current is the connection that stands, nil if none does.
func (r *Runtime) current() *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != nil && r.link.alive() {
		return r.link
	}
	return nil
}

var errClosed = fmt.Errorf("%w: runtime is closed", ErrKeeper)

// connect returns a connection, to a keeper that it starts if none answers.
func (r *Runtime) connect(ctx context.Context) (*link, error) {
	if l := r.current(); l != nil {
		return l, nil
	}
	r.connecting.Lock()
	defer r.connecting.Unlock()
	if l := r.current(); l != nil {
		return l, nil
	}
	if r.ctx.Err() != nil {
		return nil, errClosed
	}
	l, err := r.dialOrLaunch(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeeper, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.managed = l.hello.Managed
	if r.ctx.Err() != nil {
		l.close()
		return nil, errClosed
	}
	r.link = l
	r.wg.Go(func() { r.watch(l) })
	return l, nil
}

func (r *Runtime) dialOrLaunch(ctx context.Context) (*link, error) {
	if l, err := dial(ctx, r.layout.Socket()); err == nil {
		return l, nil
	} else if answered(err) {
		return nil, err
	}
	if l := r.awaitManaged(ctx); l != nil {
		return l, nil
	}
	if r.options.Managed {
		return nil, ErrNotStarted
	}
	return r.dialOrStart(ctx)
}

// How long a service manager may take to start its keeper again, and how long Open waits for it: whoever opens may have something to say
// meanwhile.
const (
	managedPatience = 10 * time.Second
	openPatience    = 2 * time.Second
)

// awaitManaged waits for a keeper that a service manager should bring back. One of
// our own would only be in its way. nil: it does not come, or there is no manager.
func (r *Runtime) awaitManaged(ctx context.Context) *link {
	r.mu.Lock()
	managed := r.managed || r.options.Managed
	patience := managedPatience
	if !r.opened {
		patience = openPatience
	}
	r.mu.Unlock()
	for end := time.Now().Add(patience); managed && time.Now().Before(end) && ctx.Err() == nil && r.ctx.Err() == nil; {
		if l, err := dial(ctx, r.layout.Socket()); err == nil {
			return l
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		case <-r.ctx.Done():
		}
	}
	return nil
}

// watch brings the keeper back as soon as it is gone: containers' output waits
// for it.
func (r *Runtime) watch(l *link) {
	select {
	case <-l.gone:
	case <-r.ctx.Done():
		return
	}
	for pause := 20 * time.Millisecond; r.ctx.Err() == nil; pause = min(2*pause, 5*time.Second) {
		if _, err := r.connect(r.ctx); err == nil {
			return
		} else if r.ctx.Err() == nil {
			r.logger.Error("keeper is away", "err", err)
		}
		select {
		case <-time.After(pause):
		case <-r.ctx.Done():
		}
	}
}

// once calls the keeper. What it asks for may happen even if the answer is
// ErrKeeper.
func (r *Runtime) once(ctx context.Context, t wire.Type, body, reply any, files ...*os.File) error {
	l, err := r.connect(ctx)
	if err != nil {
		return err
	}
	m, err := l.call(ctx, t, body, files...)
	if err != nil {
		return err
	}
	defer m.CloseFiles()
	if reply == nil {
		return nil
	}
	return m.Decode(reply)
}

// repeat is once for what may be asked again if the keeper dies over it.
func (r *Runtime) repeat(ctx context.Context, t wire.Type, body, reply any) error {
	for try := 0; ; try++ {
		err := r.once(ctx, t, body, reply)
		if err == nil || !keeperGone(err) || try == 3 || ctx.Err() != nil || r.ctx.Err() != nil {
			return err
		}
	}
}
