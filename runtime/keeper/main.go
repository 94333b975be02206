package keeper

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path"
	goruntime "runtime"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters namespaces before the Go runtime starts

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// flags is the keeper's command line, and which build it is. The last three flags are for its own use.
type flags struct {
	options
	own      bool // move into a group of our own
	check    bool // only prove that we could take over
	version  bool // only print it
	ready    int  // descriptor to write to once the socket answers
	listener int  // inherited from the binary that we replace
	lock     int
	build    func() string
}

func parseFlags(args []string) (flags, error) {
	var f flags
	fs := flag.NewFlagSet("wherry-keeper", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.root, "root", "/var/lib/wherry", "folder of durable state")
	fs.StringVar(&f.runDir, "run-dir", "/run/wherry", "folder of the socket and of state that ends with the boot")
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "wherry", "control group that all containers stand under")
	fs.BoolVar(&f.own, "own-cgroup", false, "move into a control group beside the containers'")
	fs.BoolVar(&f.check, "check-handoff", false, "check that the containers of the running keeper could be taken over, then end")
	fs.BoolVar(&f.version, "version", false, "print the version")
	fs.IntVar(&f.ready, "ready-fd", -1, "descriptor to write to when the socket answers")
	fs.IntVar(&f.listener, "listener-fd", -1, "inherited listening socket")
	fs.IntVar(&f.lock, "lock-fd", -1, "inherited lock")
	if err := fs.Parse(args); err != nil {
		return f, err
	}
	if fs.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	f.cgroupParent = path.Clean("/" + f.cgroupParent)
	if f.cgroupParent == "/" {
		return f, errors.New("cgroup parent: the root group cannot be it")
	}
	return f, nil
}

// Main is the whole of the keeper's command: args are those of the process,
// without its name, and build says which version this is. The result is the exit code.
//
// libcontainer runs this binary again, as "init", for every process it puts
// into a container; then Main never returns. Nothing may come before it.
func Main(args []string, build func() string) int {
	if len(args) > 0 && args[0] == "init" {
		libcontainer.Init()
	}
	if rest, ok := ociArgs(os.Args[0], args); ok {
		return ociMain(rest, build)
	}
	// The main thread stays ours: one that changes its namespaces and then ends must never be this one.
	goruntime.LockOSThread()
	f, err := parseFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println("usage: wherry-keeper --root DIR --run-dir DIR --cgroup-parent GROUP [--check-handoff], or --version")
		return 0
	}
	f.build = build
	if err == nil && f.version {
		fmt.Printf("wherry-keeper %s %s %s/%s\n", build(), goruntime.Version(), goruntime.GOOS, goruntime.GOARCH)
		return 0
	}
	if err == nil {
		err = run(f)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: wherry-keeper: %v\n", err)
		if errors.Is(err, errSecond) {
			return wire.ExitSecond
		}
		return 1
	}
	return 0
}

func run(f flags) error {
	f.logger = newLogger(os.Stderr)
	logrus.SetOutput(os.Stderr)
	logrus.SetLevel(logrus.WarnLevel)
	if f.check {
		err := checkHandoff(f.options)
		if err == nil {
			fmt.Println(handoffProof)
		}
		return err
	}
	debug.SetGCPercent(gcCalm)
	unix.Umask(0o022)
	d := &daemon{flags: f}
	return d.run()
}

// daemon is the process around a Keeper: its lock, its socket, its end.
type daemon struct {
	flags
	k        *Keeper
	lockFile *os.File
	socket   *net.UnixListener
	stopped  chan struct{}
}

// errSecond: another keeper serves this run folder.
var errSecond = errors.New("another keeper holds the lock")

func (d *daemon) run() error {
	d.stopped = make(chan struct{})
	if err := os.MkdirAll(d.runDir, 0o711); err != nil {
		return err
	}
	l, err := bundle.New(d.root, d.runDir)
	if err != nil {
		return err
	}
	if err := d.takeLock(l.Lock()); err != nil {
		return err
	}
	if d.own {
		if err := (cgroup.Group{Path: path.Join(d.cgroupParent, ownGroup)}).Join(os.Getpid()); err != nil {
			d.logger.Warn("stays in the group of whoever started it", "err", err)
		}
	}
	if err := d.takeOver(l.Socket()); err != nil {
		return err
	}
	d.announce()
	d.k.heirlooms.store.notify("READY=1")
	d.ignoreSignals()
	s := &server{
		k: d.k, listener: d.socket,
		instance: rand.Text(), build: d.build(),
		managed: os.Getenv(envManaged) != "", refused: refused(),
		upgrade: d.upgrade, shutdown: d.shutdown,
	}
	d.k.busy()
	d.logger.Info("keeper serves", "pid", os.Getpid(), "containers", len(d.k.list()))
	err = s.serve()
	select {
	case <-d.stopped:
		leaveGroup(d.cgroupParent)
	default:
	}
	return err
}

// prepare takes over what an earlier keeper has left, and opens the socket.
func (d *daemon) prepare(socket string) error {
	k, err := open(d.options)
	if err != nil {
		return err
	}
	d.k = k
	k.heirlooms.inherit(d.logger)
	if k.heirlooms.store = newStoreHeir(os.Getenv(envNotify), d.logger); k.heirlooms.store != nil {
		k.heirlooms.appoint(k.heirlooms.store)
	}
	go k.watchOOM()
	if err := k.adopt(); err != nil {
		return err
	}
	return d.listen(socket)
}

// takeLock makes sure that there is one keeper. The lock belongs to the open
// file, which an upgrade hands on.
func (d *daemon) takeLock(path string) error {
	if d.lock >= 0 {
		d.lockFile = os.NewFile(uintptr(d.lock), path)
		unix.CloseOnExec(d.lock)
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errSecond
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	d.lockFile = f
	return nil
}

func (d *daemon) listen(path string) error {
	if d.listener >= 0 {
		f := os.NewFile(uintptr(d.listener), path)
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("inherited socket: %w", err)
		}
		d.socket = l.(*net.UnixListener)
		return nil
	}
	os.Remove(path) // ours to remove: we hold the lock
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	d.socket = l
	return os.Chmod(path, 0o600)
}

// announce tells whoever started us that the socket answers.
func (d *daemon) announce() {
	if d.ready < 0 {
		return
	}
	f := os.NewFile(uintptr(d.ready), "ready")
	f.Write([]byte("ready\n"))
	f.Close()
}

// ignoreSignals: a terminal's wish to end us is none of the containers' business. SIGTERM ends an idle keeper, and any that a service
// manager runs.
func (d *daemon) ignoreSignals() {
	signal.Ignore(unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	go func() {
		for range term {
			d.terminated()
		}
	}()
}
