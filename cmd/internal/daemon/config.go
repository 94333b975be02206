package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

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
	Bridge       string
	Subnet       netip.Prefix
	Registries   map[string]supervisor.Registry
	DockerConfig string
	Logging      unit.Logging
}

// key is one key of wherry.yaml.
type key struct {
	name    string
	missing string // the default, in words
	set     func(c *Config, n node, p *problems)
	keys    []key // of a map below it
	anyKey  bool  // the map's keys are the user's: keys[0] reads each value
	later   bool  // known, but not built yet
}

// keys is every key of wherry.yaml.
var keys = []key{
	{name: "root", missing: "/var/lib/wherry", set: path(func(c *Config) *string { return &c.Root })},
	{name: "run_dir", missing: "/run/wherry", set: path(func(c *Config) *string { return &c.RunDir })},
	{name: "units", missing: "/etc/wherry/units", set: path(func(c *Config) *string { return &c.Units })},
	{name: "socket", missing: "wherry.sock in run_dir", set: path(func(c *Config) *string { return &c.Socket })},
	{name: "keeper", missing: "beside wherry, then /usr/lib/wherry/wherry-keeper", set: path(func(c *Config) *string { return &c.Keeper })},
	{name: "auto_apply", missing: "true", set: func(c *Config, n node, p *problems) { n.boolean(p, &c.AutoApply) }},
	{name: "cgroup_parent", missing: "wherry", set: text(func(c *Config) *string { return &c.CgroupParent })},
	{name: "network", keys: []key{
		{name: "bridge", missing: "wherry0", set: text(func(c *Config) *string { return &c.Bridge })},
		{name: "subnet", missing: "the first free private one", set: setSubnet},
		{name: "ipv6", later: true},
		{name: "dns", later: true},
	}},
	{name: "registries", anyKey: true, keys: []key{
		{name: "HOST", keys: []key{
			{name: "insecure", missing: "false; loopback may always be plain HTTP", set: setInsecure},
			{name: "mirrors", later: true}, {name: "ca", later: true}, {name: "cert", later: true},
			{name: "credentials", later: true}, {name: "policy", later: true},
		}},
	}},
	{name: "docker_config", missing: "$DOCKER_CONFIG/config.json, then /root/.docker/config.json, if it is there", set: path(func(c *Config) *string { return &c.DockerConfig })},
	{name: "logging", keys: []key{
		{name: "max_size", missing: "10MiB", set: func(c *Config, n node, p *problems) { n.size(p, &c.Logging.MaxSize) }},
		{name: "max_file", missing: "3", set: func(c *Config, n node, p *problems) { n.count(p, &c.Logging.MaxFile) }},
		{name: "total", later: true},
	}},
	{name: "environment", later: true}, {name: "cgroup_driver", later: true}, {name: "gc", later: true},
	{name: "defaults", later: true}, {name: "reserve", later: true}, {name: "api", later: true},
	{name: "metrics", later: true}, {name: "shutdown", later: true},
}

// keysHelp lists the keys with their defaults.
func keysHelp() string {
	var b strings.Builder
	b.WriteString("Keys of " + DefaultConfig + ", with their defaults:\n")
	var list func(prefix string, keys []key)
	list = func(prefix string, keys []key) {
		for _, k := range keys {
			switch {
			case k.later:
			case k.keys != nil:
				list(prefix+k.name+".", k.keys)
			default:
				fmt.Fprintf(&b, "  %-24s %s\n", prefix+k.name, k.missing)
			}
		}
	}
	list("", keys)
	return strings.TrimRight(b.String(), "\n")
}

// defaults is the configuration of an empty file. getenv gives DOCKER_CONFIG.
func defaults(getenv func(string) string) Config {
	return Config{
		Root: "/var/lib/wherry", RunDir: "/run/wherry", Units: "/etc/wherry/units", AutoApply: true,
		CgroupParent: "wherry", Bridge: "wherry0", Registries: map[string]supervisor.Registry{},
		DockerConfig: dockerConfig(getenv("DOCKER_CONFIG")),
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
		Keeper: c.Keeper, CgroupParent: c.CgroupParent, Bridge: c.Bridge, Subnet: c.Subnet,
		Registries: c.Registries, DockerConfig: c.DockerConfig, Logging: c.Logging, Version: version,
	}
}

func text(field func(*Config) *string) func(*Config, node, *problems) {
	return func(c *Config, n node, p *problems) { n.text(p, field(c)) }
}

// path is text that must be an absolute path: the daemon's working folder is
// nobody's concern.
func path(field func(*Config) *string) func(*Config, node, *problems) {
	return func(c *Config, n node, p *problems) {
		var s string
		if !n.text(p, &s) {
			return
		}
		if !filepath.IsAbs(s) {
			p.add(n, fmt.Sprintf("%q is not an absolute path", s), "")
			return
		}
		*field(c) = filepath.Clean(s)
	}
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

func setInsecure(c *Config, n node, p *problems) {
	var insecure bool
	if n.boolean(p, &insecure) {
		c.Registries[n.parent] = supervisor.Registry{Insecure: insecure}
	}
}
