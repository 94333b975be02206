package supervisor

import (
	"context"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/runtime/usernamespace"
)

// What the supervisor needs of the parts below it. The real ones are
// *runtime.Runtime, *network.Manager and *image.Store as they are; package
// supervisortest has others.

// starter makes containers.
type starter interface {
	MakeNamespaces(ctx context.Context, n runtime.Namespaces) (*os.File, error)
	ReleaseNamespaces(ctx context.Context, run string) error
	Start(ctx context.Context, c runtime.Config) (runtime.Status, error)
}

// watcher says what is.
type watcher interface {
	List(ctx context.Context) ([]runtime.Status, error)
	Events(ctx context.Context) <-chan runtime.Event
	Stats(ctx context.Context, id string) (cgroup.Stats, error)
}

// ender ends containers.
type ender interface {
	Stop(ctx context.Context, id string, grace time.Duration) (runtime.Exit, error)
	Kill(ctx context.Context, id string) error
	Wait(ctx context.Context, id string) (runtime.Exit, error)
	Remove(ctx context.Context, id string) error
}

// execer runs further processes.
type execer interface {
	Exec(ctx context.Context, id string, p runtime.Process) (runtime.Exit, error)
}

// handler handles running containers.
type handler interface {
	Signal(ctx context.Context, id, signal string) error
	Update(ctx context.Context, id string, l cgroup.Limits) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Attach(ctx context.Context, id string) (*os.File, error)
	CloseStdin(ctx context.Context, id string) error
	Root(ctx context.Context, id string) (*os.File, error)
}

type containers interface {
	starter
	watcher
	ender
	execer
	handler
	KeeperPid() int
	Close() error
}

// networks connects runs.
type networks interface {
	Attach(ctx context.Context, ns *os.File, e network.Endpoint) (network.Lease, error)
	Detach(ctx context.Context, run string) error
	Repair(ctx context.Context, live []string) error
	Leases() []network.Lease
}

// userRanges leases ids of the host to runs, and says what can be used with them.
type userRanges interface {
	Lease(run string) (runtime.IDMap, error)
	Hold(run string, m runtime.IDMap) error
	Release(run string) error
	Keep(live []string) error
	Kernel() error
	Probe(path string, all bool) error
	Decide(file, dir, run string) (usernamespace.Decision, error)
}

// images gives root file systems.
type images interface {
	Pull(ctx context.Context, ref string, o image.PullOptions) (image.Image, error)
	Get(ref string) (image.Image, error)
	Admit(ctx context.Context, ref, digest string, o image.PullOptions) error
	Prepare(ctx context.Context, digest, id, dir string, o image.PrepareOptions) ([]specs.Mount, error)
	Release(id string) error
	Leases() ([]string, error)
	Collect(ctx context.Context, o image.GCOptions) (image.GCResult, error)
	Explain(ctx context.Context, ref string, o image.GCOptions) (image.Explanation, error)
	Disk() (image.DiskState, error)
	Usage(ctx context.Context) (image.Usage, error)
	Close() error
}

var (
	_ containers = (*runtime.Runtime)(nil)
	_ networks   = (*network.Manager)(nil)
	_ images     = (*image.Store)(nil)
)
