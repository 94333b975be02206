package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/supervisor/api"
)

// TestDiseases breaks one thing of a healthy host at a time.
func TestDiseases(t *testing.T) {
	type disease struct {
		check   string
		hurt    func(*sick)
		verdict api.Verdict
		detail  string // part of it
		remedy  string // part of it
	}
	file := func(path, text string) func(*sick) { return func(s *sick) { s.file(path, text) } }
	release := func(r string) func(*sick) { return func(s *sick) { s.o.host.release = r } }
	keeper := func(k runtime.KeeperState, err error) func(*sick) {
		return func(s *sick) {
			s.o.probes.keeper = func(context.Context) (runtime.KeeperState, error) { return k, err }
		}
	}
	services := func(change func(map[string]service)) func(*sick) {
		return func(s *sick) {
			all := allServices("active")
			change(all)
			s.o.probes.services = func(context.Context) (map[string]service, error) { return all, nil }
		}
	}
	delegation := func(d cgroup.Delegation) func(*sick) {
		return func(s *sick) {
			if d.Controllers == nil {
				d.Controllers = []string{"cpuset", "cpu", "io", "memory", "pids"}
			}
			s.o.probes.delegation = func() (cgroup.Delegation, error) { return d, nil }
		}
	}
	root := func(f fileSystem) func(*sick) {
		return func(s *sick) { s.o.probes.statfs = func(string) (fileSystem, error) { return f, nil } }
	}
	disk := func(d image.DiskState) func(*sick) {
		return func(s *sick) { s.o.probes.disk = func(string) (image.DiskState, error) { return d, nil } }
	}
	networks := func(d network.Diagnosis, err error) func(*sick) {
		return func(s *sick) { s.o.probes.network = func() (network.Diagnosis, error) { return d, err } }
	}
	login := func(l image.Login, open []string, err error) func(*sick) {
		return func(s *sick) {
			s.o.probes.login = func(context.Context, string) (image.Login, []string, error) { return l, open, err }
		}
	}
	both := func(all ...func(*sick)) func(*sick) {
		return func(s *sick) {
			for _, f := range all {
				f(s)
			}
		}
	}
	v1 := func(s *sick) { s.o.probes.mode = func() (cgroup.Mode, error) { return cgroup.Legacy, nil } }
	fedora := file("/etc/os-release", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n")
	const reg = "registry.r.example.com"

	for _, d := range []disease{
		{"daemon", func(s *sick) { s.o.Daemon = nil }, api.Skip, "none to ask", ""},
		{"daemon", func(s *sick) {
			s.o.Daemon = func(context.Context) (api.Info, error) { return api.Info{}, fmt.Errorf("dial: %w", unix.ECONNREFUSED) }
		}, api.Warn, "does not answer: dial", "systemctl start wherry.service"},
		{"daemon", func(s *sick) {
			s.o.Daemon = func(context.Context) (api.Info, error) { return api.Info{}, fmt.Errorf("dial: %w", unix.EACCES) }
		}, api.Skip, "the group wherry", ""},
		{"daemon", func(s *sick) {
			s.o.Daemon = func(context.Context) (api.Info, error) {
				return api.Info{Warnings: []string{"events not written"}}, nil
			}
		}, api.Warn, "events not written", "wherry ctl status"},
		{"daemon", func(s *sick) {
			s.file("/proc/812/x", "")
			if err := os.Symlink("/usr/bin/wherry (deleted)", s.o.host.path("/proc/812/exe")); err != nil {
				s.t.Fatal(err)
			}
		}, api.Warn, "has been replaced", "systemctl restart wherry.service"},

		{"keeper", keeper(runtime.KeeperState{}, errTest), api.Fail, "neither beside wherry", "keeper: /path"},
		{"keeper", keeper(runtime.KeeperState{Binary: "/k"}, errTest), api.Fail, "it hurts", "/run/wherry/keeper.log"},
		{"keeper", both(keeper(runtime.KeeperState{Binary: "/k"}, errTest), func(s *sick) { s.o.KeeperManaged = true }), api.Fail, "it hurts", "systemctl start wherry-keeper.service"},
		{"keeper", both(keeper(runtime.KeeperState{Binary: "/k"}, errTest), func(s *sick) { s.o.Daemon = nil }), api.OK, "the daemon starts it", ""},
		{"keeper", keeper(runtime.KeeperState{Binary: "/k", Pid: 5, Build: "1.1"}, nil), api.Warn, "1.1 pid 5, another build than /k", "systemctl restart wherry.service"},
		{"keeper", keeper(runtime.KeeperState{Binary: "/k", Pid: 5, Refused: "state of version 9"}, nil), api.Warn, "state of version 9", "install the release before it"},

		{"systemd", func(s *sick) { s.gone("/run/systemd") }, api.Skip, "not PID 1", ""},
		{"systemd", services(func(m map[string]service) { clear(m) }), api.Warn, "not installed", "scripts/install"},
		{"systemd", services(func(m map[string]service) {
			m["wherry-cargo.service"] = service{load: "loaded", active: "inactive"}
		}), api.Fail, "owns the control groups, is inactive", "systemctl restart wherry-keeper.service"},
		{"systemd", services(func(m map[string]service) { m["wherry-keeper.service"] = service{load: "loaded", active: "failed"} }), api.Fail, "wherry-keeper.service has failed", "journalctl -u wherry-keeper.service"},
		{"systemd", services(func(m map[string]service) { m["wherry-shutdown.service"] = service{load: "not-found"} }), api.Warn, "wherry-shutdown.service is missing", "install the package again"},
		{"systemd", services(func(m map[string]service) {
			m["wherry.service"] = service{load: "loaded", active: "active", file: "disabled"}
		}), api.Warn, "does not start at boot", "systemctl enable wherry.service"},
		{"systemd", services(func(m map[string]service) {
			m["wherry.socket"] = service{load: "loaded", active: "active", stale: true}
		}), api.Warn, "changed on disk", "systemctl daemon-reload"},

		{"files.config", func(s *sick) { s.o.ConfigErr = errors.New("/etc/wherry/wherry.yaml:2:1: unknown key \"x\"\nand more") }, api.Fail, `yaml:2:1: unknown key "x"; and more`, "wherry ctl reload"},
		{"files.config", both(file("/etc/wherry/wherry.yaml", ""), func(s *sick) {
			s.o.Images.Registries = map[string]image.Registry{"r": {Mirrors: []string{"ftp://x"}}}
		}), api.Fail, "mirror", "registries"},
		{"files.units", file("/etc/wherry/units/bad.yaml", "imag: x\n"), api.Fail, `/etc/wherry/units/bad.yaml:1:1: unknown key "imag"`, "wherry ctl validate /etc/wherry/units"},
		{"files.units", func(s *sick) {
			s.o.probes.limits = func(cgroup.Limits) error { return errors.New(`limit memory: no "memory"`) }
		}, api.Fail, `unit web: limit memory`, "wherry ctl validate"},
		{"files.units", func(s *sick) {
			s.o.probes.limits = func(cgroup.Limits) error { return fmt.Errorf("cpuset 9: %w", cgroup.ErrBeyondHost) }
		}, api.OK, "1 in /etc/wherry/units", ""},
		{"files.units", func(s *sick) { s.gone("/etc/wherry/units") }, api.OK, "no folder", ""},

		{"kernel.version", release("5.4.0"), api.Fail, "need 5.6", "apt full-upgrade"},
		{"kernel.version", both(release("5.4.0"), fedora), api.Fail, "too old", "dnf upgrade"},
		{"kernel.version", release("5.10.0-9"), api.Warn, "user namespaces (layers with shifted ids) need 5.19", "reboot"},
		{"kernel.version", release("6.1.0"), api.OK, "EROFS images need 6.12", ""},
		{"kernel.version", release("6.12.3"), api.OK, "(PIDFD_GET_INFO) needs 6.15", ""},
		{"kernel.version", release("strange"), api.Skip, "strange", ""},
		{"kernel.seccomp", func(s *sick) { s.gone("/proc/sys/kernel/seccomp") }, api.Fail, "CONFIG_SECCOMP_FILTER", "seccomp: unconfined"},

		{"cgroup.mode", v1, api.Warn, "cgroup v1", "update-grub"},
		{"cgroup.mode", both(v1, fedora), api.Warn, "cgroup v1", "grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1"},
		{"cgroup.mode", func(s *sick) { s.o.probes.mode = func() (cgroup.Mode, error) { return 0, errTest } }, api.Fail, "it hurts", "mount -t cgroup2"},
		{"cgroup.delegation", delegation(cgroup.Delegation{}), api.Warn, "delegated no group", "systemctl enable --now wherry.service"},
		{"cgroup.delegation", both(delegation(cgroup.Delegation{}), func(s *sick) { s.gone("/run/systemd") }), api.OK, "no systemd claims them", ""},
		{"cgroup.delegation", both(delegation(cgroup.Delegation{}), func(s *sick) { s.o.CgroupDriver = "systemd" }), api.OK, "systemd makes the groups", ""},
		{"cgroup.delegation", delegation(cgroup.Delegation{Group: "/a", Occupied: []string{"7"}}), api.Fail, "processes stand in /a itself (pid 7)", "mkdir /sys/fs/cgroup/a/leaf"},
		{"cgroup.delegation", delegation(cgroup.Delegation{ReadOnly: true}), api.Fail, "read-only", "--privileged"},
		{"cgroup.controllers", delegation(cgroup.Delegation{Controllers: []string{"cpu", "pids"}}), api.Fail, "no memory for our groups", "echo +memory >/sys/fs/cgroup/cgroup.subtree_control"},
		{"cgroup.controllers", both(delegation(cgroup.Delegation{Controllers: []string{"cpu", "pids", "cpuset", "io"}}), file("/proc/cmdline", "quiet cgroup_disable=memory")), api.Fail, "no memory", "take cgroup_disable=memory off"},
		{"cgroup.controllers", delegation(cgroup.Delegation{Controllers: []string{"cpu", "pids", "memory", "cpuset"}}), api.Warn, "no io", "+io"},
		{"cgroup.swap", both(file("/proc/swaps", "Filename\n/dev/sda2 partition 1\n"), func(s *sick) {
			s.o.probes.limits = func(cgroup.Limits) error { return errors.New("limit swap: not counted") }
		}), api.Warn, "not counted", "swapaccount=1"},
		{"cgroup.pressure", func(s *sick) { s.gone("/proc/pressure") }, api.Warn, "PSI", "psi=1"},

		{"fs.root", root(fileSystem{"ext4", unix.ST_RDONLY}), api.Fail, "read-only", "remount,rw"},
		{"fs.root", root(fileSystem{"ext4", unix.ST_NODEV | unix.ST_NOSUID}), api.Warn, "nodev,nosuid", "remount,dev,suid"},
		{"fs.root", root(fileSystem{"tmpfs", 0}), api.Warn, "gone after a reboot", "mkfs.ext4"},
		{"fs.root", root(fileSystem{"nfs", 0}), api.Fail, "on nfs", "root: /path/there"},
		{"fs.root", root(fileSystem{"overlay", 0}), api.Warn, "a container's own", "mount a volume"},
		{"fs.root", func(s *sick) {
			if err := os.Chmod(s.o.host.path("/var/lib"), 0o750); err != nil {
				s.t.Fatal(err)
			}
		}, api.Warn, "/var/lib is closed to others", "chmod o+x /var/lib"},
		{"fs.run", root(fileSystem{"ext4", 0}), api.Warn, "not on a tmpfs", "/etc/fstab"},
		{"fs.run", both(root(fileSystem{"ext4", 0}), func(s *sick) { s.o.RunDir = "/srv/run" }), api.Warn, "not on a tmpfs", "run_dir: /run/wherry"},
		{"fs.run", disk(image.DiskState{Total: 10 << 20, Free: 1 << 20}), api.Fail, "1.0 MiB free of 10.0 MiB", "remount,size="},
		{"fs.overlay", func(s *sick) { s.o.probes.overlay = failing(unix.ENODEV) }, api.Fail, "no overlays", "modprobe overlay"},
		{"fs.overlay", func(s *sick) { s.o.probes.overlay = failing(image.ErrNoTypes) }, api.Fail, "ftype=0", "mkfs.xfs -n ftype=1"},
		{"fs.overlay", func(s *sick) { s.o.probes.overlay = failing(unix.EINVAL) }, api.Fail, "takes no writable layers", "ext4, XFS or btrfs"},
		{"fs.overlay", func(s *sick) { s.o.probes.overlay = failing(unix.EPERM) }, api.Fail, "not permitted", "CAP_SYS_ADMIN"},
		{"fs.overlay", func(s *sick) { s.o.probes.overlay = failing(unix.ENOSPC) }, api.Fail, "no space", "image gc"},
		{"fs.erofs", both(release("6.1.0"), erofsFails), api.OK, "need Linux 6.12", ""},
		{"fs.erofs", both(file("/proc/filesystems", "ext4\n"), erofsFails), api.Warn, "slower", "modprobe erofs"},
		{"fs.erofs", both(file("/proc/filesystems", "ext4\n"), erofsFails, wantErofs), api.Fail, "layers: erofs", "layers: auto"},
		{"fs.erofs", both(erofsFails, wantErofs), api.Warn, "loop devices", "layers: auto"},
		{"fs.idmap", func(s *sick) { s.o.probes.idmap = failing(errTest) }, api.Warn, "no user namespace", "ext4, XFS or btrfs"},
		{"fs.idmap", func(s *sick) { s.o.probes.idmap, s.o.UserNS = failing(errTest), "required" }, api.Fail, "no user namespace", "userns: auto"},
		{"fs.quota", func(s *sick) { s.o.probes.quota = failing(errors.New("no project quotas")) }, api.OK, "cannot be used: no project quotas", ""},
		{"userns", file("/proc/sys/user/max_user_namespaces", "0"), api.Warn, "is 0", `sysctl -w user.max_user_namespaces="63556"`},
		{"userns", file("/proc/sys/user/max_user_namespaces", "20"), api.Warn, "is 20", "63556"},
		{"userns", func(s *sick) { s.o.probes.userns, s.o.UserNS = func() error { return errTest }, "required" }, api.Fail, "it hurts", "reboot"},

		{"disk.space", disk(image.DiskState{Total: 100 << 30, Free: 1 << 29, Reserve: 1 << 30, Used: 99}), api.Fail, "512.0 MiB free of 100.0 GiB", "wherry ctl image gc --all"},
		{"disk.space", disk(image.DiskState{Total: 100 << 30, Free: 10 << 30, Reserve: 1 << 30, Used: 90}), api.Warn, "above 85 %", "image gc"},
		{"disk.inodes", disk(image.DiskState{Inodes: 1e6, InodesFree: 900}), api.Fail, "900 of 1000000 inodes free", "mkfs.ext4 -N"},
		{"disk.inodes", disk(image.DiskState{Inodes: 1e6, InodesFree: 1e5}), api.Warn, "90 % in use", "du --inodes"},
		{"disk.inodes", disk(image.DiskState{}), api.OK, "as many", ""},

		{"net.kernel", func(s *sick) { s.o.probes.nftables = func() error { return unix.ENOENT } }, api.Fail, "lacks", "nf_tables"},
		{"net.kernel", func(s *sick) { s.o.probes.nftables = func() error { return unix.EPERM } }, api.Fail, "not permitted", "CAP_NET_ADMIN"},
		{"net.kernel", func(s *sick) { s.o.probes.nftables = func() error { return unix.ENOSPC } }, api.Fail, "no more", "user.max_net_namespaces"},
		{"net.firewall", networks(network.Diagnosis{Dropped: []network.Obstacle{{Chain: "table ip filter, chain FORWARD", Remedy: "iptables -I FORWARD -j ACCEPT"}}}, nil),
			api.Fail, "table ip filter, chain FORWARD: drops", "iptables -I FORWARD -j ACCEPT; apt install iptables-persistent"},
		{"net.firewall", networks(network.Diagnosis{Dropped: []network.Obstacle{{Chain: "c", Remedy: "nft insert rule x"}}}, nil), api.Fail, "drops", "/etc/nftables.conf"},
		{"net.firewall", networks(network.Diagnosis{Dropped: []network.Obstacle{{Chain: "c", Remedy: "ufw route allow in on wherry0"}}}, nil), api.Fail, "drops", "ufw route allow in on wherry0"},
		{"net.firewall", networks(network.Diagnosis{Refused: []network.Obstacle{{Chain: "table inet fw, chain pass", Remedy: "nft insert rule inet fw pass iifname wherry0 accept"}}}, nil), api.Warn, "inet fw, chain pass: its last rule refuses", "nft insert rule inet fw pass iifname wherry0 accept"},
		{"net.firewall", networks(network.Diagnosis{Firewalld: true}, nil), api.Warn, "in no zone", "firewall-cmd --permanent --zone=trusted --add-interface=wherry0"},
		{"net.firewall", networks(network.Diagnosis{Firewalld: true, Zoned: true}, nil), api.OK, "has it in a zone", ""},
		{"net.firewall", networks(network.Diagnosis{}, errTest), api.Warn, "it hurts", "nft list ruleset"},
		{"net.forwarding", file("/proc/sys/net/ipv4/ip_forward", "0"), api.OK, "switches it on", ""},
		{"net.forwarding", both(file("/proc/sys/net/ipv4/ip_forward", "0"), file("/sys/class/net/wherry0/x", "")), api.Fail, "is 0", `sysctl -w net.ipv4.ip_forward="1"`},
		{"net.forwarding", file("/etc/sysctl.d/99-hard.conf", "\n# no\nnet/ipv4/ip_forward = 0\n"), api.Warn, "/etc/sysctl.d/99-hard.conf:3 sets it to 0", "sed -i '3 s|.*|net.ipv4.ip_forward = 1|' /etc/sysctl.d/99-hard.conf"},
		{"net.forwarding", both(file("/usr/lib/sysctl.d/10-a.conf", "net.ipv4.ip_forward=0"), file("/etc/sysctl.d/10-a.conf", "")), api.OK, "is 1", ""},
		{"net.bridge", networks(network.Diagnosis{Bridge: errTest}, nil), api.Fail, "it hurts", "ip link del wherry0"},
		{"net.bridge", networks(network.Diagnosis{SubnetErr: errTest}, nil), api.Fail, "it hurts", "network: {subnet:"},
		{"net.dns", file("/etc/resolv.conf", "nameserver 127.0.0.1\n"), api.Warn, "8.8.8.8", "nameserver ADDRESS"},
		{"net.dns", both(file("/etc/resolv.conf", "nameserver 127.0.0.53\n"), file("/run/systemd/resolve/resolv.conf", "nameserver 192.0.2.9\n")), api.OK, "name servers", ""},

		{"clock.time", func(s *sick) { s.o.host.now = func() time.Time { return today.AddDate(-1, 0, 0) } }, api.Fail, "it is 2025-05-04 12:00:00 UTC here, but", "hwclock -w; then systemctl enable --now chrony"},
		{"clock.time", func(s *sick) { s.o.host.now = func() time.Time { return today.AddDate(30, 0, 0) } }, api.Fail, "2056", "date -s"},
		{"clock.sync", unsynced, api.Warn, "nothing keeps", "chronyc makestep"},
		{"clock.sync", both(unsynced, func(s *sick) { s.gone("/usr/lib/systemd/system") }, fedora), api.Warn, "nothing keeps", "dnf install chrony"},

		{"limits.files", file("/proc/813/limits", "Max open files  1024  4096 files\n"), api.Fail, "wherry-keeper may open 1024 files", "LimitNOFILE=1048576"},
		{"limits.files", file("/proc/812/limits", "Max open files  8192  8192 files\n"), api.Warn, "wherry may open 8192 files", "systemctl restart wherry.service"},
		{"limits.files", both(file("/proc/812/limits", "Max open files  8192  8192 files\n"), func(s *sick) { s.gone("/run/systemd") }), api.Warn, "8192", "ulimit -n"},
		{"limits.files", file("/proc/sys/fs/file-nr", "950 0 1000"), api.Fail, "950 of 1000 open files", "fs.file-max"},
		{"limits.inotify", func(s *sick) { s.o.probes.inotify = func() error { return unix.EMFILE } }, api.Fail, "used up", "max_user_instances"},
		{"limits.inotify", file("/proc/sys/fs/inotify/max_user_instances", "16"), api.Warn, "16 instances", "1024"},
		{"limits.inotify", file("/proc/sys/fs/inotify/max_user_watches", "4096"), api.Warn, "4096 watches", "524288"},
		{"limits.tasks", file("/proc/loadavg", "9 9 9 3/32000 1"), api.Fail, "32000 of 32768", "kernel.pid_max"},
		{"limits.tasks", both(file("/proc/loadavg", "9 9 9 3/1600 1"), file("/proc/sys/kernel/threads-max", "2000")), api.Warn, "80 %", "kernel.threads-max"},
		{"limits.mounts", file("/proc/sys/fs/mount-max", "3"), api.Fail, "3 of 3 mounts", "fs.mount-max"},
		{"limits.conntrack", file("/proc/sys/net/netfilter/nf_conntrack_count", "260000"), api.Fail, "dropped", "nf_conntrack_max"},
		{"limits.conntrack", func(s *sick) { s.gone("/proc/sys/net/netfilter") }, api.OK, "no connections", ""},
		{"limits.memory", file("/proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 100000 kB\n"), api.Warn, "97.7 MiB available", "wherry ctl stats"},

		{"lsm", file("/sys/fs/selinux/enforce", "1"), api.Warn, "knows no containers", "dnf install container-selinux"},
		{"lsm", both(file("/sys/fs/selinux/enforce", "1"), file("/var/lib/selinux/targeted/active/modules/200/container/cil", "")), api.OK, "knows containers", ""},
		{"lsm", file("/sys/fs/selinux/enforce", "0"), api.OK, "permissive", ""},
		{"lsm", file("/sys/module/apparmor/parameters/enabled", "N"), api.OK, "neither", ""},

		{reg, login(image.Login{From: "password_file /p"}, nil, nil), api.OK, "credentials from password_file /p", ""},
		{reg, login(image.Login{}, []string{"/p"}, nil), api.Warn, "/p can be read by everybody", "chmod 600 /p"},
		{reg, login(image.Login{Date: today.Add(-20 * time.Minute)}, nil, nil), api.Fail, "ours is 20m0s off", "date -s"},
		{reg, login(image.Login{}, nil, fmt.Errorf("password_file /p: %w", fs.ErrNotExist)), api.Fail, "password_file /p", "install -m 600"},
		{reg, login(image.Login{}, nil, errors.New("credential helper docker-credential-ecr-login: no such program in PATH")), api.Fail, "no such program", "wherry logs in to ECR by itself"},
		{reg, login(image.Login{}, nil, errors.New("credential helper docker-credential-x: no such program in PATH")), api.Fail, "no such program", "daemon's PATH"},
		{reg, login(image.Login{}, nil, errors.New("x509: certificate signed by unknown authority")), api.Fail, "x509", "ca: /etc/wherry/ca.pem"},
		{reg, login(image.Login{}, nil, errors.New("x509: certificate has expired or is not yet valid")), api.Fail, "x509", "date -s"},
		{reg, login(image.Login{}, nil, image.ErrDenied), api.Fail, "", "docker login r.example.com"},
		{reg, login(image.Login{}, nil, image.ErrUnavailable), api.Fail, "", "curl -v https://r.example.com/v2/"},
		{reg, login(image.Login{}, nil, errTest), api.Fail, "it hurts", "mend the credentials"},
		{"registry.1.dkr.ecr.eu-west-1.amazonaws.com", file("/etc/wherry/units/e.yaml", "image: 1.dkr.ecr.eu-west-1.amazonaws.com/a:1\n"), api.Warn, "no credentials", "AmazonEC2ContainerRegistryReadOnly"},
		{"registry.docker.io", func(s *sick) { s.o.Hosts = []string{"docker.io", "docker.io"} }, api.OK, "public images", ""},
	} {
		t.Run(d.check+" "+d.detail, func(t *testing.T) {
			s := healthy(t)
			d.hurt(s)
			got := s.find(d.check)
			if got.Verdict != d.verdict || !strings.Contains(got.Detail, d.detail) || !strings.Contains(got.Remedy, d.remedy) {
				t.Errorf("%+v\nwant %s, %q, %q", got, d.verdict, d.detail, d.remedy)
			}
			if problem := got.Verdict == api.Warn || got.Verdict == api.Fail; problem != (got.Remedy != "") {
				t.Errorf("%s with the remedy %q", got.Verdict, got.Remedy)
			}
			tried[d.check] = true
		})
	}
	for _, c := range checks {
		if !tried[c.name] {
			t.Errorf("nothing is wrong with %s", c.name)
		}
	}
}

var tried = map[string]bool{}

func failing(err error) func(string) error { return func(string) error { return err } }

func erofsFails(s *sick) { s.o.probes.erofs = failing(unix.ENODEV) }
func wantErofs(s *sick)  { s.o.Images.Form = image.EROFS }

func unsynced(s *sick) { s.o.probes.clock = func() (clockState, error) { return clockState{}, nil } }

func TestFamilies(t *testing.T) {
	for text, want := range map[string]string{
		"ID=ubuntu\nID_LIKE=debian\n": "debian", "ID=amzn\nID_LIKE=\"fedora\"\n": "fedora", "ID=arch\n": "", "": "", "ID='linuxmint'\nID_LIKE='ubuntu debian'": "debian",
	} {
		s := healthy(t)
		s.file("/etc/os-release", text)
		if got := s.o.host.family(); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	s := healthy(t)
	s.gone("/etc/os-release")
	if got := s.o.host.choose("a", "b"); got != "a (Debian, Ubuntu), or b (Fedora, RHEL)" {
		t.Errorf("unknown: %q", got)
	}
}

func TestServices(t *testing.T) {
	all := parseServices("Id=wherry.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNRestarts=3\nNeedDaemonReload=yes\n\nId=wherry.socket\nLoadState=not-found\nActiveState=inactive\n")
	if names := slices.Sorted(maps.Keys(all)); !slices.Equal(names, []string{"wherry.service", "wherry.socket"}) {
		t.Errorf("%q", names)
	}
	if s := all["wherry.service"]; s != (service{"loaded", "active", "enabled", "3", true}) {
		t.Errorf("%+v", s)
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 3 << 30: "3.0 GiB", 1 << 62: "4.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
