package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/usernamespace"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// fakeUsers is a host that can have user namespaces, but for what is set.
type fakeUsers struct {
	kernel  error
	probe   map[string]error // by path
	decided map[string]usernamespace.Decision

	mu     sync.Mutex
	leases map[string]runtime.IDMap
}

func (u *fakeUsers) Kernel() error { return u.kernel }

func (u *fakeUsers) Probe(path string, _ bool) error { return u.probe[path] }

func (u *fakeUsers) Lease(run string) (runtime.IDMap, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.leases == nil {
		u.leases = map[string]runtime.IDMap{}
	}
	if len(u.leases) == 2 {
		return runtime.IDMap{}, usernamespace.ErrNoIDs
	}
	u.leases[run] = runtime.IDMap{HostID: uint32(1+len(u.leases)) << 20, Size: usernamespace.Size}
	return u.leases[run], nil
}

func (u *fakeUsers) Hold(run string, m runtime.IDMap) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.leases[run] = m
	return nil
}

func (u *fakeUsers) Release(run string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.leases, run)
	return nil
}

func (u *fakeUsers) Keep(live []string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for run := range u.leases {
		if !slices.Contains(live, run) {
			delete(u.leases, run)
		}
	}
	return nil
}

func (u *fakeUsers) Decide(file, dir, run string) (usernamespace.Decision, error) {
	if d, ok := u.decided[filepath.Base(filepath.Dir(dir))]; ok {
		return d, nil
	}
	return usernamespace.Decision{Shifted: true}, nil
}

func (u *fakeUsers) left() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.leases)
}

// userWorld is a world whose host has user namespaces.
func userWorld(t *testing.T, f func(t *testing.T, w *supervisortest.World, o Options, u *fakeUsers)) {
	t.Helper()
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		for _, dir := range []string{o.RunDir, filepath.Dir(o.RunDir)} { // those of tests are closed
			if err := os.Chmod(dir, 0o711); err != nil {
				t.Fatal(err)
			}
		}
		u := &fakeUsers{probe: map[string]error{}}
		o.hooks.users = u
		f(t, w, o, u)
	})
}

func TestUserNamespaceOfARun(t *testing.T) {
	userWorld(t, func(t *testing.T, w *supervisortest.World, o Options, u *fakeUsers) {
		d := begin(t, o)
		d.apply(web + "volumes: [\"data:/data\", /anon]\n")
		d.want("web", "running")
		c := w.Runtime.Config("web.1")
		if c.IDMap == nil || c.IDMap.Size != usernamespace.Size || !c.Join {
			t.Fatalf("started with %+v, join %v", c.IDMap, c.Join)
		}
		for _, target := range []string{"/data", "/anon", "/etc/hosts"} {
			m, _ := mountAt(c.Spec.Mounts, target)
			if !slices.Contains(m.Options, "ridmap") && !slices.Contains(m.Options, "idmap") {
				t.Errorf("%s is not shifted: %+v", target, m)
			}
		}
		i := d.unit("web").Instances[0]
		if want := fmt.Sprintf("ids from %d", c.IDMap.HostID); i.UserNS != want {
			t.Errorf("status says %q, want %q", i.UserNS, want)
		}
		d.end()
		d = begin(t, o) // a daemon that comes later knows
		if got := d.unit("web").Instances[0].UserNS; got != i.UserNS || u.left() != 1 {
			t.Errorf("the next daemon says %q, %d leases", got, u.left())
		}
		d.empty(w)
		if u.left() != 0 {
			t.Errorf("%d leases left", u.left())
		}
		d.end()
	})
}

func TestWithoutUserNamespace(t *testing.T) {
	source := t.TempDir()
	closed := filepath.Join(source, "kvm")
	if err := os.WriteFile(closed, nil, 0o660); err != nil {
		t.Fatal(err)
	}
	cannot := fmt.Errorf("file system fuse %w", usernamespace.ErrCannotShift)
	for _, c := range []struct {
		name, text, why string
		set             func(*fakeUsers)
		allowed         bool // with required
	}{
		{name: "kernel", set: func(u *fakeUsers) { u.kernel = errors.New("no user namespaces") }, why: "no user namespaces"},
		{name: "bind", text: "volumes: [\"" + source + ":/b\"]\n", set: func(u *fakeUsers) { u.probe[source] = cannot }, why: "bind /b: file system fuse"},
		{name: "volume", text: "volumes: [\"data:/b\"]\n", why: "volume data is used without",
			set: func(u *fakeUsers) { u.decided = map[string]usernamespace.Decision{"data": {Why: "x"}} }},
		{name: "user", text: "user: \"70000\"\n", why: "70000"},
		{name: "host network", text: "network: host\n", why: "network: host", allowed: true},
		{name: "capability", text: "cap_add: [SYS_TIME]\n", why: "SYS_TIME", allowed: true},
		{name: "all capabilities", text: "cap_add: [ALL]\n", why: "ALL", allowed: true},
		{name: "pid", text: "pid: host\n", why: "pid: host"},
		{name: "ipc", text: "ipc: host\n", why: "ipc: host"},
		{name: "privileged", text: "privileged: true\n", why: "privileged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			userWorld(t, func(t *testing.T, w *supervisortest.World, o Options, u *fakeUsers) {
				if c.set != nil {
					c.set(u)
				}
				d := begin(t, o)
				defer d.end()
				d.apply(web + c.text)
				d.want("web", "running")
				i := d.unit("web").Instances[0]
				if w.Runtime.Config("web.1").IDMap != nil || !strings.HasPrefix(i.UserNS, "none: ") || !strings.Contains(i.UserNS, c.why) {
					t.Errorf("auto: %q, want none for %q", i.UserNS, c.why)
				}
				_, err := d.tryApply("name: strict\nimage: nginx:1\nrestart: no\nuserns: required\n" + c.text)
				if err != nil {
					return // the unit contradicts itself
				}
				d.state("strict")
				if c.allowed {
					if w.Runtime.Config("strict.1").IDMap == nil {
						t.Error("required, and not given")
					}
					return
				}
				if got := d.unit("strict").Instances[0].Error; !strings.Contains(got, "userns: required") || !strings.Contains(got, c.why) {
					t.Errorf("required: %q", got)
				}
			})
		})
	}
}

func TestUserNamespaceByDefault(t *testing.T) {
	userWorld(t, func(t *testing.T, w *supervisortest.World, o Options, u *fakeUsers) {
		o.Defaults.UserNS = "host"
		d := begin(t, o)
		defer d.end()
		d.apply(web, "name: db\nimage: nginx:1\nuserns: auto\n", "name: host\nimage: nginx:1\nuserns: host\n")
		for unit, want := range map[string]string{"web": "none: the daemon's default", "db": "ids from", "host": "none: the unit says"} {
			d.want(unit, "running")
			if got := d.unit(unit).Instances[0].UserNS; !strings.HasPrefix(got, want) {
				t.Errorf("%s: %q", unit, got)
			}
		}
	})
}

// No ids left: auto goes on without.
func TestNoIDsLeft(t *testing.T) {
	userWorld(t, func(t *testing.T, w *supervisortest.World, o Options, u *fakeUsers) {
		d := begin(t, o)
		defer d.end()
		d.apply(web + "replicas: 3\n")
		d.want("web", "running")
		var none int
		for _, i := range d.unit("web").Instances {
			if strings.Contains(i.UserNS, "no free range") {
				none++
			}
		}
		if none != 1 {
			t.Errorf("%+v", d.unit("web").Instances)
		}
		d.empty(w)
	})
}

// The run folder is closed to others.
func TestClosedRunFolder(t *testing.T) {
	userWorld(t, func(t *testing.T, w *supervisortest.World, o Options, u *fakeUsers) {
		if err := os.Chmod(o.RunDir, 0o700); err != nil {
			t.Fatal(err)
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		if got := d.unit("web").Instances[0].UserNS; !strings.Contains(got, "closed to others") {
			t.Errorf("%q", got)
		}
	})
}

// What was decided stands beside the run.
func TestUserNamespaceInTheRecord(t *testing.T) {
	userWorld(t, func(t *testing.T, w *supervisortest.World, o Options, u *fakeUsers) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		raw, err := os.ReadFile(d.paths.record(d.unit("web").Instances[0].Run))
		if err != nil {
			t.Fatal(err)
		}
		var rec record
		if err := json.Unmarshal(raw, &rec); err != nil || rec.IDMap == nil {
			t.Errorf("record %s, %v", raw, err)
		}
	})
}
