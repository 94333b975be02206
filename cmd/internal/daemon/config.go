package daemon

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// DefaultConfig is the configuration if no other is named; it need not exist.
const DefaultConfig = "/etc/wherry/wherry.yaml"

// Config is what wherry.yaml says, defaults filled in.
type Config struct {
	Root         string
	RunDir       string
	Units        string
	Socket       string // empty: wherry.sock in RunDir
	Keeper       string
	AutoApply    bool
	CgroupParent string
	CgroupDriver string        // empty: cgroupfs
	Shutdown     time.Duration // budget of a shutdown of the host
	Bridge       string
	Subnet       netip.Prefix
	Registries   map[string]supervisor.Registry
	DockerConfig string
	Layers       image.Form // empty: the better one
	GC           supervisor.GC
	Reserve      int64
	Logging      unit.Logging
	LogTotal     int64 // 0: a share of the file system
	Defaults     supervisor.Defaults

	// Warnings are about files that are read anew at every pull: that they are
	// not there now must not keep a daemon from starting.
	Warnings unit.Errors
}

// keys is every key of wherry.yaml.
var keys = []key[Config]{
	{name: "root", missing: "/var/lib/wherry", set: path(func(c *Config) *string { return &c.Root })},
	{name: "run_dir", missing: "/run/wherry", set: path(func(c *Config) *string { return &c.RunDir })},
	{name: "units", missing: "/etc/wherry/units", set: path(func(c *Config) *string { return &c.Units })},
	{name: "socket", missing: "wherry.sock in run_dir", set: path(func(c *Config) *string { return &c.Socket })},
	{name: "keeper", missing: "beside wherry, then /usr/lib/wherry/wherry-keeper", set: path(func(c *Config) *string { return &c.Keeper })},
	{name: "auto_apply", missing: "true", set: func(c *Config, n node, p *problems) { n.boolean(p, &c.AutoApply) }},
	{name: "cgroup_parent", missing: "wherry", set: text(func(c *Config) *string { return &c.CgroupParent })},
	into("network", networkKeys, func(c *Config) *Config { return c }),
	{name: "registries", set: setRegistries, below: below("registries.HOST", registryKeys)},
	{name: "docker_config", missing: "$DOCKER_CONFIG/config.json, then /root/.docker/config.json, if it is there", set: func(c *Config, n node, p *problems) {
		if n.path(p, &c.DockerConfig) {
			p.readable(n, c.DockerConfig)
		}
	}},
	{name: "layers", missing: "auto: erofs where the kernel mounts it from files (Linux 6.12), else folder", set: setLayers},
	into("gc", gcKeys, func(c *Config) *Config { return c }),
	into("logging", loggingKeys, func(c *Config) *Config { return c }),
	into("defaults", defaultsKeys, func(c *Config) *supervisor.Defaults { return &c.Defaults }),
	{name: "cgroup_driver", missing: "cgroupfs", set: setCgroupDriver},
	into("shutdown", shutdownKeys, func(c *Config) *Config { return c }),
	{name: "environment", later: true},
	{name: "reserve", later: true}, {name: "api", later: true},
	{name: "metrics", later: true},
}

var networkKeys = []key[Config]{
	{name: "bridge", missing: "wherry0", set: text(func(c *Config) *string { return &c.Bridge })},
	{name: "subnet", missing: "the first free private one", set: setSubnet},
	{name: "ipv6", later: true},
	{name: "dns", later: true},
}

var shutdownKeys = []key[Config]{
	{name: "budget", missing: "1m", set: setBudget},
}

var loggingKeys = []key[Config]{
	{name: "max_size", missing: "10MiB", set: func(c *Config, n node, p *problems) { n.size(p, &c.Logging.MaxSize) }},
	{name: "max_file", missing: "3", set: func(c *Config, n node, p *problems) { n.count(p, &c.Logging.MaxFile) }},
	{name: "total", missing: "a tenth of root's file system", set: func(c *Config, n node, p *problems) { n.size(p, &c.LogTotal) }},
}

// keysHelp lists the keys with their defaults.
func keysHelp() string {
	var b strings.Builder
	b.WriteString("Keys of " + DefaultConfig + ", with their defaults:\n")
	list(&b, below("", keys))
	b.WriteString("\nKeys of a rule in registries.HOST.policy; the first rule that matches decides, and\nwhat none matches is accepted:\n")
	list(&b, below("", ruleKeys))
	return strings.TrimRight(b.String(), "\n")
}

func list(b *strings.Builder, lines []line) {
	for _, l := range lines {
		fmt.Fprintf(b, "  %-42s %s\n", l.name, l.missing)
	}
}

// defaults is the configuration of an empty file. getenv gives DOCKER_CONFIG and what
// units of systemd say.
func defaults(getenv func(string) string) Config {
	return Config{
		Root: "/var/lib/wherry", RunDir: "/run/wherry", Units: "/etc/wherry/units", AutoApply: true,
		CgroupParent: cmp.Or(getenv(envCgroupParent), "wherry"), Shutdown: time.Minute, Bridge: "wherry0", Registries: map[string]supervisor.Registry{},
		DockerConfig: dockerConfig(getenv("DOCKER_CONFIG")),
		GC:           supervisor.GC{High: 85, Low: 80, MinAge: time.Hour, KeepRevisions: 5},
		Logging:      unit.Logging{MaxSize: 10 << 20, MaxFile: 3},
	}
}

// dockerConfig finds the credentials that Docker's tools on this host use.
func dockerConfig(folder string) string {
	if folder == "" {
		folder = "/root/.docker"
	}
	file := filepath.Join(folder, "config.json")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// Options are the supervisor's. Reload, Logger and Listener are the caller's to
// add.
func (c Config) Options(version string) supervisor.Options {
	socket := c.Socket
	if socket == "" {
		socket = filepath.Join(c.RunDir, "wherry.sock")
	}
	return supervisor.Options{
		Root: c.Root, RunDir: c.RunDir, Units: c.Units, NoAutoApply: !c.AutoApply, Socket: socket,
		KeeperManaged: os.Getenv(envKeeperManaged) != "", CgroupDriver: c.CgroupDriver, ShutdownBudget: c.Shutdown,
		Keeper: c.Keeper, CgroupParent: c.CgroupParent, Bridge: c.Bridge, Subnet: c.Subnet,
		Registries: c.Registries, DockerConfig: c.DockerConfig, Layers: c.Layers, GC: c.GC, Reserve: c.Reserve,
		Logging: c.Logging, LogTotal: c.LogTotal, Defaults: c.Defaults, Version: version,
	}
}

func text(field func(*Config) *string) func(*Config, node, *problems) {
	return func(c *Config, n node, p *problems) { n.text(p, field(c)) }
}

func path(field func(*Config) *string) func(*Config, node, *problems) {
	return func(c *Config, n node, p *problems) { n.path(p, field(c)) }
}

func setSubnet(c *Config, n node, p *problems) {
	var s string
	if !n.text(p, &s) {
		return
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil || !prefix.Addr().Is4() {
		p.add(n, fmt.Sprintf("%q is not an IPv4 network", s), "such as 10.88.0.0/16")
		return
	}
	c.Subnet = prefix
}

func setCgroupDriver(c *Config, n node, p *problems) {
	var s string
	if !n.text(p, &s) {
		return
	}
	if s != "cgroupfs" && s != "systemd" {
		p.add(n, fmt.Sprintf("%q is unknown", s), "it is cgroupfs or systemd")
		return
	}
	c.CgroupDriver = s
}

func setBudget(c *Config, n node, p *problems) {
	s, ok := n.scalar(p, "a duration such as 2m")
	if !ok {
		return
	}
	d, err := unit.ParseDuration(s)
	switch {
	case err != nil:
		p.add(n, err.Error(), "")
	case d <= 0:
		p.add(n, "a shutdown needs some time", "such as 1m")
	default:
		c.Shutdown = time.Duration(d)
	}
}

func setLayers(c *Config, n node, p *problems) {
	var s string
	if !n.text(p, &s) {
		return
	}
	switch s {
	case "auto":
		c.Layers = ""
	case string(image.Folder), string(image.EROFS):
		c.Layers = image.Form(s)
	default:
		p.add(n, fmt.Sprintf("%q is unknown", s), "it is auto, folder or erofs")
	}
}
