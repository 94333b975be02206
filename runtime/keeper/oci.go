package keeper

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// ociName begins the names under which our binary behaves as an OCI runtime
// without being told: "wherry-oci", "wherry-runc" and the like. Engines call a
// runtime by its path alone.
const ociName = "wherry-"

// ociArgs returns the arguments of the OCI runtime, and whether it is meant.
func ociArgs(name string, args []string) ([]string, bool) {
	if len(args) > 0 && args[0] == "oci" {
		return args[1:], true
	}
	base := filepath.Base(name)
	return args, base == ociName+"oci" || base == ociName+"runc" || strings.HasPrefix(base, ociName+"oci-")
}

// oci is one call of the OCI runtime: its global options.
type oci struct {
	root     string
	rootSet  bool
	log      string
	format   string
	debug    bool
	systemd  bool
	rootless string
	build    func() string // which version this is
}

// ociExit ends a command with a code of its own: the container's, or that of
// an error which is not 1.
type ociExit struct {
	code int
	err  error // nil: nothing to tell
}

func (e *ociExit) Error() string { return e.err.Error() }
func (e *ociExit) Unwrap() error { return e.err }

// errUsage: the words are shown, with the command's usage.
var errUsage = errors.New("incorrect usage")

// ociMain is the command line of runc over the keeper's code. No daemon has a part in
// it: a container's state is what libcontainer keeps below --root.
func ociMain(args []string, build func() string) int {
	debug.SetGCPercent(400) // a short life
	o := oci{build: build}
	err := o.main(args)
	var exit *ociExit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.err == nil:
		return exit.code
	}
	// Engines read the last error of --log, people stderr.
	logrus.Error(err)
	if o.log != "" {
		fmt.Fprintln(os.Stderr, err)
	}
	if exit != nil {
		return exit.code
	}
	return 1
}

func (o *oci) main(args []string) error {
	fs, rest, err := o.parse(args)
	if err != nil {
		return err
	}
	if fs == nil { // --version
		return nil
	}
	if len(rest) == 0 || rest[0] == "help" {
		return ociHelp(fs, rest)
	}
	cmd := findOCICommand(rest[0])
	if cmd == nil {
		return fmt.Errorf("%w: no command %q", errUsage, rest[0])
	}
	if err := o.prepare(); err != nil {
		return err
	}
	return cmd.run(o, rest[1:])
}

// parse reads the global options. No flag set comes back if all is done.
func (o *oci) parse(args []string) (*flag.FlagSet, []string, error) {
	fs := newOCIFlags("wherry-oci")
	fs.BoolVar(&o.debug, "debug", false, "log more")
	fs.StringVar(&o.log, "log", "", "file that takes the log instead of stderr")
	fs.StringVar(&o.format, "log-format", "text", "text or json")
	fs.StringVar(&o.root, "root", ociRoot(), "folder of the containers' state, better on a tmpfs")
	fs.BoolVar(&o.systemd, "systemd-cgroup", false, "let systemd make the groups; cgroupsPath is SLICE:PREFIX:NAME")
	fs.StringVar(&o.rootless, "rootless", "auto", "ignore that groups may not be written: true, false or auto")
	fs.String("criu", "", "not used")
	var version bool
	ociAlias(fs, &version, "print the version", "version", "v")
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil, nil, ociHelp(fs, nil)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	fs.Visit(func(f *flag.Flag) { o.rootSet = o.rootSet || f.Name == "root" })
	if version {
		o.version()
		return nil, nil, nil
	}
	return fs, fs.Args(), nil
}

// ociRoot is where state lies unless --root says otherwise.
func ociRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Geteuid() != 0 {
		return filepath.Join(dir, "wherry-oci")
	}
	return "/run/wherry-oci"
}

// prepare makes the options usable: the root is absolute, the log open.
func (o *oci) prepare() error {
	switch o.format {
	case "text", "":
	case "json":
		logrus.SetFormatter(new(logrus.JSONFormatter))
	default:
		return fmt.Errorf("--log-format %q: text or json", o.format)
	}
	if o.debug {
		logrus.SetLevel(logrus.DebugLevel)
	}
	if o.log != "" {
		f, err := os.OpenFile(o.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
		if err != nil {
			o.log = "" // what is wrong goes to stderr then
			return fmt.Errorf("--log: %w", err)
		}
		logrus.SetOutput(f)
	}
	root, err := filepath.Abs(o.root)
	if err == nil && root == "/" {
		err = errors.New("/ cannot be it")
	}
	if err != nil {
		return fmt.Errorf("--root: %w", err)
	}
	o.root = root
	return nil
}

// version prints what engines expect to be able to parse.
func (o *oci) version() {
	fmt.Println("wherry-oci version", ociNumber(o.build()))
	fmt.Println("spec:", specs.Version)
	fmt.Println("go:", goruntime.Version())
	major, minor, micro := libseccomp.GetLibraryVersion()
	fmt.Printf("libseccomp: %d.%d.%d\n", major, minor, micro)
}

// ociNumber is a version as engines read it: a build from a checkout may have none but its commit.
func ociNumber(v string) string {
	if number := strings.TrimPrefix(v, "v"); number != "" && number[0] >= '0' && number[0] <= '9' && strings.Contains(number, ".") {
		return v
	}
	return "0.0.0+" + v
}

// closeOnExecFrom keeps n inherited descriptors from our own children.
func closeOnExecFrom(from, n int) {
	for fd := from; fd < from+n; fd++ {
		unix.CloseOnExec(fd)
	}
}
