package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/supervisor/api"
)

// today is when the tests play.
var today = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// sick is a host on which all is well until a test breaks it.
type sick struct {
	t *testing.T
	o Options
}

func healthy(t *testing.T) *sick {
	s := &sick{t: t, o: Options{Units: "/etc/wherry/units", Limit: time.Minute}}
	s.o.host = &host{root: t.TempDir(), release: "6.18.1-amd64", now: func() time.Time { return today }}
	s.o.probes = &probes{
		overlay: none, erofs: none, quota: none, idmap: none,
		userns: nothing, nftables: nothing, inotify: nothing,
		network: func() (network.Diagnosis, error) { return network.Diagnosis{Subnet: network.DefaultSubnets[0]}, nil },
		statfs: func(dir string) (fileSystem, error) {
			if strings.HasSuffix(dir, "/run") {
				return fileSystem{name: "tmpfs"}, nil
			}
			return fileSystem{name: "ext4"}, nil
		},
		disk: func(string) (image.DiskState, error) {
			return image.DiskState{Total: 100 << 30, Free: 60 << 30, Reserve: 1 << 30, Used: 40, Inodes: 1e6, InodesFree: 9e5}, nil
		},
		mode: func() (cgroup.Mode, error) { return cgroup.Unified, nil },
		delegation: func() (cgroup.Delegation, error) {
			return cgroup.Delegation{Group: "/wherry.slice/wherry-cargo.service", Controllers: []string{"cpuset", "cpu", "io", "memory", "pids"}}, nil
		},
		limits: func(cgroup.Limits) error { return nil },
		clock:  func() (clockState, error) { return clockState{synced: true, error: 1500}, nil },
		keeper: func(context.Context) (runtime.KeeperState, error) {
			return runtime.KeeperState{Pid: 813, Build: "1.2.3", Binary: "/usr/lib/wherry/wherry-keeper", Same: true, Managed: true}, nil
		},
		services: func(context.Context) (map[string]service, error) { return allServices("active"), nil },
		login: func(context.Context, string) (image.Login, []string, error) {
			return image.Login{Anonymous: true}, nil, nil
		},
	}
	s.o.Daemon = func(context.Context) (api.Info, error) {
		return api.Info{Version: "1.2.3", Pid: 812, StartedAt: today.Add(-time.Hour)}, nil
	}
	for path, text := range map[string]string{
		"/run/systemd/system/x":                    "",
		"/etc/os-release":                          "ID=debian\n",
		"/etc/resolv.conf":                         "nameserver 192.0.2.1\n",
		"/proc/sys/kernel/seccomp/actions_avail":   "kill_process allow",
		"/proc/swaps":                              "Filename Type Size Used Priority\n",
		"/proc/pressure/memory":                    "some avg10=0.00",
		"/proc/sys/net/ipv4/ip_forward":            "1",
		"/proc/sys/fs/file-nr":                     "1000 0 1000000",
		"/proc/812/limits":                         "Limit  Soft  Hard  Units\nMax open files   1048576   1048576   files\n",
		"/proc/813/limits":                         "Max open files            1048576              1048576              files\n",
		"/proc/sys/fs/inotify/max_user_instances":  "128",
		"/proc/sys/fs/inotify/max_user_watches":    "65536",
		"/proc/loadavg":                            "0.1 0.2 0.3 1/234 5678",
		"/proc/sys/kernel/pid_max":                 "32768",
		"/proc/sys/kernel/threads-max":             "63000",
		"/proc/sys/fs/mount-max":                   "100000",
		"/proc/self/mountinfo":                     "1\n2\n3\n",
		"/proc/meminfo":                            "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n",
		"/proc/sys/user/max_user_namespaces":       "63556",
		"/proc/filesystems":                        "nodev\ttmpfs\n\text4\n\terofs\n",
		"/etc/wherry/units/web.yaml":               "image: r.example.com/web:1\n",
		"/var/lib/wherry/state.db":                 "",
		"/sys/module/apparmor/parameters/enabled":  "Y",
		"/usr/lib/systemd/system/chrony.service":   "",
		"/sys/fs/cgroup/cgroup.controllers":        "cpuset cpu io memory hugetlb pids",
		"/usr/lib/os-release":                      "",
		"/usr/lib/systemd/system/wherry.service":   "",
		"/proc/sys/net/netfilter/nf_conntrack_max": "262144", "/proc/sys/net/netfilter/nf_conntrack_count": "12",
	} {
		s.file(path, text)
	}
	return s
}

func none(string) error { return nil }
func nothing() error    { return nil }

func allServices(state string) map[string]service {
	all := map[string]service{}
	for _, name := range serviceNames {
		all[name] = service{load: "loaded", active: state, file: "enabled"}
	}
	return all
}

// file writes a file of the host, as old as the system.
func (s *sick) file(path, text string) {
	s.t.Helper()
	path = s.o.host.path(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	old := today.AddDate(0, -1, 0)
	if err := os.Chtimes(path, old, old); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sick) gone(path string) {
	s.t.Helper()
	if err := os.RemoveAll(s.o.host.path(path)); err != nil {
		s.t.Fatal(err)
	}
}

// find is the finding of one check.
func (s *sick) find(name string) api.Check {
	s.t.Helper()
	for _, c := range Run(s.t.Context(), s.o).Checks {
		if c.Name == name {
			return c
		}
	}
	s.t.Fatalf("no check %q", name)
	return api.Check{}
}

func TestHealthy(t *testing.T) {
	s := healthy(t)
	d := Run(t.Context(), s.o)
	for _, c := range d.Checks {
		if c.Verdict != api.OK || c.Detail == "" || c.Remedy != "" {
			t.Errorf("%+v", c)
		}
	}
	if len(d.Checks) != len(checks)+1 || d.Checks[len(checks)].Name != "registry.r.example.com" {
		t.Errorf("%d checks", len(d.Checks))
	}
}

// Whatever is wrong has a remedy, and nobody's text breaks a line.
func TestNothingThere(t *testing.T) {
	s := healthy(t)
	s.gone("/")
	s.o.Daemon = nil
	for _, c := range Run(t.Context(), s.o).Checks {
		problem := c.Verdict == api.Warn || c.Verdict == api.Fail
		if c.Detail == "" || problem != (c.Remedy != "") || strings.Contains(c.Detail+c.Remedy, "\n") {
			t.Errorf("%+v", c)
		}
	}
}

func TestNotRoot(t *testing.T) {
	s := healthy(t)
	s.o.host.uid = 1000
	s.o.probes.overlay = func(string) error { t.Error("mounts as somebody"); return nil }
	for _, name := range []string{"fs.overlay", "keeper", "net.firewall"} {
		if c := s.find(name); c.Verdict != api.Skip || !strings.Contains(c.Detail, "sudo wherry ctl doctor") {
			t.Errorf("%+v", c)
		}
	}
}

// A check that hangs costs its own line, and is not begun again while it does.
func TestHanging(t *testing.T) {
	s := healthy(t)
	synctest.Test(t, func(t *testing.T) {
		s.o.Limit = 5 * time.Second
		var asked atomic.Int64
		release := make(chan struct{})
		s.o.probes.quota = func(string) error { asked.Add(1); <-release; return nil }
		var d Doctor
		find := func() api.Check {
			for _, c := range d.Run(t.Context(), s.o).Checks {
				if c.Name == "fs.quota" {
					return c
				}
				if c.Verdict != api.OK {
					t.Errorf("%+v", c)
				}
			}
			return api.Check{}
		}
		begun := time.Now()
		if c := find(); c.Verdict != api.Fail || c.Detail != "no answer within 5s" || c.Remedy == "" {
			t.Errorf("%+v", c)
		}
		if took := time.Since(begun); took > 6*time.Second {
			t.Errorf("took %v", took)
		}
		if c := find(); c.Verdict != api.Fail || !strings.Contains(c.Detail, "earlier") || asked.Load() != 1 {
			t.Errorf("asked %d times: %+v", asked.Load(), c)
		}
		close(release)
		synctest.Wait()
		if c := find(); c.Verdict != api.OK {
			t.Errorf("%+v", c)
		}
	})
}

func TestPanicOfACheck(t *testing.T) {
	s := healthy(t)
	s.o.probes.erofs = func(string) error { panic("oops") }
	if c := s.find("fs.erofs"); c.Verdict != api.Fail || !strings.Contains(c.Detail, "oops") {
		t.Errorf("%+v", c)
	}
}

var errTest = errors.New("it hurts")
