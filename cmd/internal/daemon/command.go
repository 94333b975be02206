package daemon

import (
	"log/slog"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
)

// flags of `wherry daemon`. Empty: what the file says, or the default.
type flags struct {
	config       string
	root         string
	runDir       string
	units        string
	socket       string
	environment  string
	keeper       string
	cgroupParent string
	bridge       string
	subnet       string
	logLevel     string
}

// Command is `wherry daemon`.
func Command(version string) *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "daemon",
		Short: "Keep units running; as root, usually by systemd",
		Example: `  sudo systemctl start wherry
  sudo wherry daemon
  sudo wherry daemon --root /srv/second --run-dir /run/second --bridge wherry1 --cgroup-parent second`,
		Long: `Containers go on when the daemon ends, whatever its end. SIGHUP reads the
configuration again. Several daemons can run side by side, each with its own
root, run folder, socket, bridge, subnet and cgroup parent.

` + keysHelp(),
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context(), f, version) },
	}
	fl := c.Flags()
	fl.StringVar(&f.config, "config", "", "configuration; "+DefaultConfig+" if it is there")
	fl.StringVar(&f.root, "root", "", "folder of the durable state")
	fl.StringVar(&f.runDir, "run-dir", "", "folder of sockets and run state, on a tmpfs")
	fl.StringVar(&f.units, "units", "", "folder of unit files")
	fl.StringVar(&f.socket, "socket", "", "the API's Unix socket; wherry.sock in the run folder")
	fl.StringVar(&f.environment, "environment", "", "not supported yet")
	fl.StringVar(&f.keeper, "keeper", "", "path of wherry-keeper; beside this binary, then /usr/lib/wherry")
	fl.StringVar(&f.cgroupParent, "cgroup-parent", "", "group that all containers stand under")
	fl.StringVar(&f.bridge, "bridge", "", "the bridge's name")
	fl.StringVar(&f.subnet, "subnet", "", "the bridge's network, such as 10.88.0.0/16")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	_ = fl.MarkHidden("environment")
	return c
}

// apply puts the flags over the configuration.
func (f flags) apply(c *Config) error {
	if f.environment != "" {
		return term.Usage("--environment: not supported yet")
	}
	for _, o := range []struct {
		given string
		to    *string
	}{
		{f.root, &c.Root}, {f.runDir, &c.RunDir}, {f.units, &c.Units}, {f.socket, &c.Socket},
		{f.keeper, &c.Keeper}, {f.cgroupParent, &c.CgroupParent}, {f.bridge, &c.Bridge},
	} {
		if o.given != "" {
			*o.to = o.given
		}
	}
	if f.subnet != "" {
		p, err := netip.ParsePrefix(f.subnet)
		if err != nil || !p.Addr().Is4() {
			return term.Usage("--subnet %s: want an IPv4 network such as 10.88.0.0/16", f.subnet)
		}
		c.Subnet = p
	}
	return nil
}

func (f flags) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(f.logLevel)); err != nil {
		return l, term.Usage("--log-level %s: want debug, info, warn or error", f.logLevel)
	}
	return l, nil
}
