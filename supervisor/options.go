package supervisor

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/image/keyless"
	"github.com/wherry-run/wherry/runtime/network"
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
	CgroupDriver string              // "cgroupfs": groups of our own; "systemd": a scope of systemd's around each run; empty: cgroupfs
	Bridge       string              // empty: "wherry0"
	Subnet       netip.Prefix        // zero: chosen
	Registries   map[string]Registry // by host; "*" is for all others
	DockerConfig string              // path of a Docker config.json; empty: none
	Layers       image.Form          // how new layers are kept; empty: the better form that the kernel can
	Reserve      int64               // bytes of the root's file system that pulls leave free; see image.Options
	Logging      unit.Logging        // for units that do not say; zero: 10 MiB in 3 files
	Defaults     Defaults            // for units that do not say
	LogTotal     int64               // bytes of all logs together; 0: a tenth of the file system of Root, negative: no bound
	Version      string              // shown by status
	Config       string              // path of the file that these options come from, for messages; empty: /etc/wherry/wherry.yaml
	Logger       *slog.Logger        // nil: discards
	StopAtExit   bool                // stop all containers when Run ends; otherwise they run on
	GC           GC                  // when images that nobody needs are deleted

	// KeeperManaged: a service manager runs the keeper. It is waited for and never started.
	KeeperManaged bool

	// ShutdownBudget is how long Shutdown takes if it is not told; 0: one minute.
	ShutdownBudget time.Duration

	// Keychain is asked for the credentials of registries that neither the unit
	// nor Registries nor DockerConfig has any for; nil: none.
	Keychain image.Keychain

	// Keyless judges image signatures by certificate identities, such as
	// keyless.Command of wherry-verify; nil: policies that name an identity are wrong.
	Keyless keyless.Verifier

	// Proxy chooses the proxy of requests to registries that name none; nil: none.
	Proxy func(*http.Request) (*url.URL, error)

	// Progress is told when a start gets on that may take long: it waits for a keeper, looks at images after a power cut, takes over
	// what runs. nil: nobody.
	Progress func(what string)

	// Reload gives new Options for SIGHUP and `ctl reload`; nil: reload is an error.
	Reload func() (Options, error)

	hooks hooks
}

// Registry is how one registry host is spoken to, and what may come from it.
type Registry = image.Registry

// GC says when images that nobody needs are deleted, and ended runs with them.
// What runs, what is being started and what a rollback needs always stays.
type GC struct {
	// High and Low are shares of the root's file system in use, in percent, as
	// df shows them: when High is reached, the longest unused images go until
	// Low is reached. 0: 85, and 5 below High.
	High, Low int

	// MinAge is how long after its pull or its last use an image stays in any
	// case. 0: one hour; negative: no time at all.
	MinAge time.Duration

	// KeepRevisions is how many revisions of each unit keep their images, the
	// current one included. 0: 5; negative: the current one alone.
	KeepRevisions int
}

func (g GC) withDefaults() GC {
	if g.High == 0 {
		g.High = 85
	}
	if g.Low == 0 || g.Low > g.High {
		g.Low = max(g.High-5, 1)
	}
	if g.MinAge == 0 {
		g.MinAge = time.Hour
	}
	if g.KeepRevisions == 0 {
		g.KeepRevisions = 5
	}
	return g
}

// hooks are for tests: other parts below the supervisor, and points at which
// the daemon dies.
type hooks struct {
	containers containers
	networks   networks
	images     images
	users      userRanges
	// fault is asked before each step of a start and of a clean-up; true
	// means that the daemon dies there.
	fault func(at string) bool
	// planned hears after each step which units it has planned, and which a plan of
	// everything would treat otherwise than it did.
	planned func(units map[string]bool, overlooked []string)
	// rescan replaces the pause before a folder is read again.
	rescan time.Duration
	// look replaces the pause between two looks at the disk.
	look time.Duration
}

const (
	startsAtOnce = 8 // containers being made
	pullsAtOnce  = 4 // images being fetched

	keptRevisions = 10

	// shutdownLimit is how long Run waits for work that does not heed its end.
	shutdownLimit = 10 * time.Second
)

func (o Options) withDefaults() Options {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&o.Root, "/var/lib/wherry")
	set(&o.RunDir, "/run/wherry")
	set(&o.CgroupParent, "wherry")
	set(&o.Bridge, network.DefaultBridge)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Logging.MaxSize == 0 {
		o.Logging.MaxSize = 10 << 20
	}
	if o.Logging.MaxFile == 0 {
		o.Logging.MaxFile = 3
	}
	o.GC = o.GC.withDefaults()
	return o
}

// paths names what stands below root and run folder.
type paths struct{ root, runDir string }

func newPaths(o Options) (paths, error) {
	root, err := realFolder(o.Root)
	if err != nil {
		return paths{}, err
	}
	runDir, err := realFolder(o.RunDir)
	return paths{root, runDir}, err
}

// realFolder makes the folder and resolves symbolic links: mounts and cgroup
// names are compared by text further down.
func realFolder(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	// Others may pass through: a container whose root is an unprivileged user
	// must reach its own files below.
	if err := os.MkdirAll(abs, 0o711); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// closeToOthers keeps the host's users out of what containers write: a setuid program
// that root of a container leaves in a layer or volume must not be there for
// them to run (as with CVE-2021-41103 of containerd). The mounts are made by root.
func (p paths) closeToOthers() error {
	for _, dir := range []string{p.runs(), filepath.Join(p.root, "volumes")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (p paths) state() string                     { return filepath.Join(p.root, "state.db") }
func (p paths) events() string                    { return filepath.Join(p.root, "events") }
func (p paths) runs() string                      { return filepath.Join(p.root, "runs") }
func (p paths) run(id string) string              { return filepath.Join(p.root, "runs", id) }
func (p paths) container(run, name string) string { return filepath.Join(p.run(run), name+".d") }
func (p paths) record(id string) string           { return filepath.Join(p.run(id), "unit.json") }
func (p paths) removing(id string) string         { return filepath.Join(p.run(id), ".removing") }
func (p paths) logs() string                      { return filepath.Join(p.root, "logs") }
func (p paths) unitLogs(unit string) string       { return filepath.Join(p.root, "logs", unit) }
func (p paths) volume(name string) string         { return filepath.Join(p.root, "volumes", name, "data") }
func (p paths) leases() string                    { return filepath.Join(p.runDir, "network") }
func (p paths) log(unit, inst, container string) string {
	return filepath.Join(p.unitLogs(unit), inst, container+".log")
}
