package runtime_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/spec"
)

// buildAttacker builds the program of testdata/attacker, which tries to get out of
// a container.
var buildAttacker = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "wherry-attacker-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "attacker")
	cmd := exec.Command("go", "build", "-o", bin, "./testdata/attacker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(bin)
})

// attacked is a world whose image holds the attacker. Each test runs twice, without and
// with a user namespace.
func attacked(t *testing.T, test func(t *testing.T, w *world, mapped bool)) {
	for _, mapped := range []bool{false, true} {
		t.Run(map[bool]string{false: "host-ids", true: "userns"}[mapped], func(t *testing.T) {
			w := newWorld(t)
			bin, err := buildAttacker()
			if err != nil {
				t.Skip("the attacker needs a Go compiler: ", err)
			}
			if err := os.WriteFile(filepath.Join(w.lower, "attacker"), bin, 0o755); err != nil {
				t.Fatal(err)
			}
			if mapped {
				w.passable()
			}
			test(t, w, mapped)
		})
	}
}

// attack is a container with the product's defaults and what want changes.
func (w *world) attack(mapped bool, want spec.Container, args ...string) runtime.Config {
	w.tb.Helper()
	c := w.config(args...)
	want.Network, want.UserNS = spec.None, mapped
	res, err := spec.Build(spec.Image{Cmd: args, Env: []string{"PATH=/bin"}}, want)
	if err != nil {
		w.tb.Fatal(err)
	}
	c.Spec, c.User, c.SELinux, c.Privileged = res.Spec, res.User, res.SELinux, want.Privileged
	for _, d := range res.Devices {
		c.Devices = append(c.Devices, runtime.Device{Source: d.Source, Target: d.Target, Permissions: d.Permissions})
	}
	if mapped {
		w.share(&c, runtime.Namespaces{IDMap: ids(idBase), Net: true})
	}
	return c
}

// results are the attacker's lines "ATTEMPT: RESULT".
func results(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if attempt, result, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			all[attempt] = result
		}
	}
	return all
}

// repelled fails for every attempt that came through, and if there were fewer than least.
func repelled(t *testing.T, text string, least int) {
	t.Helper()
	all := results(text)
	for _, attempt := range slices.Sorted(maps.Keys(all)) {
		if all[attempt] == "ok" {
			t.Errorf("%s came through", attempt)
		}
	}
	if len(all) < least {
		t.Errorf("%d attempts:\n%s", len(all), text)
	}
}

// Nothing but 0 to 2 is open in a container or in what is exec'd into it, and the init's
// own descriptors are out of reach (CVE-2024-21626, CVE-2016-9962).
func TestEscapeDescriptors(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		look := func(text string, init bool) {
			t.Helper()
			for line := range strings.Lines(text) {
				n, target, _ := strings.Cut(strings.TrimPrefix(line, "fd "), " ")
				own := strings.HasSuffix(strings.TrimSpace(target), "/fd") // the folder that is being listed
				if strings.HasPrefix(line, "fd ") && n != "0" && n != "1" && n != "2" && !own {
					t.Errorf("open inside: %s", line)
				}
			}
			all := results(text)
			if len(all) < 5 {
				t.Errorf("output %q", text)
			}
			for _, what := range []string{"fds of the init", "exe of the init", "cwd of the init", "root of the init"} {
				if init && all[what] == "ok" {
					t.Errorf("%s: visible", what)
				}
			}
		}
		for _, init := range []bool{true, false} {
			c := w.attack(mapped, spec.Container{}, "/attacker", "fds")
			c.Init = init
			look(w.output(c), init)
		}
		c := w.attack(mapped, spec.Container{}, "sleep", "1000")
		w.start(c)
		text := w.execOutput(c, runtime.Process{Args: []string{"/attacker", "fds"}})
		look(text, true)
		w.kill(c)
	})
}

// execOutput runs a process in c and returns what it wrote.
func (w *world) execOutput(c runtime.Config, p runtime.Process) string {
	w.tb.Helper()
	f, err := os.CreateTemp(w.root, "exec-")
	if err != nil {
		w.tb.Fatal(err)
	}
	defer f.Close()
	p.Stdout, p.Stderr = f, f
	if _, err := w.rt.Exec(w.ctx(), c.ID(), p); err != nil {
		w.tb.Fatalf("exec: %v", err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		w.tb.Fatal(err)
	}
	return string(b)
}

func (w *world) kill(c runtime.Config) {
	w.tb.Helper()
	if err := w.rt.Kill(w.ctx(), c.ID()); err != nil {
		w.tb.Error(err)
	}
	w.finish(c)
}

// A working folder that is a descriptor of the runtime's own leads out of the root
// (CVE-2024-21626): at the start, or in an exec.
func TestEscapeWorkingDir(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		const look = "ls -a ../../../../../../../../../../.. 2>/dev/null; ls ."
		outside := func(text string) bool { // the host has folders that the image has not
			return strings.Contains(text, "usr\n") || strings.Contains(text, "boot\n") || strings.Contains(text, "var\n")
		}
		sleeper := w.attack(mapped, spec.Container{}, "sleep", "1000")
		w.start(sleeper)
		for fd := range 24 {
			dir := fmt.Sprintf("/proc/self/fd/%d", fd)
			f, err := os.CreateTemp(w.root, "exec-")
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.rt.Exec(w.ctx(), sleeper.ID(), runtime.Process{Args: []string{"sh", "-c", look}, Cwd: dir, Stdout: f, Stderr: f})
			b, _ := os.ReadFile(f.Name())
			f.Close()
			if err == nil && outside(string(b)) {
				t.Errorf("exec in %s shows\n%s", dir, b)
			}
			if fd%4 != 0 && mapped {
				continue // a start takes its time
			}
			c := w.attack(mapped, spec.Container{WorkingDir: dir}, "sh", "-c", look)
			if _, err := w.rt.Start(w.ctx(), c); err == nil {
				w.finish(c)
				if text := w.text(c); outside(text) {
					t.Errorf("a container in %s shows\n%s", dir, text)
				}
			}
		}
		w.kill(sleeper)
	})
}

// What enters a container cannot be overwritten from inside, so that the next one that
// enters is ours again (CVE-2019-5736).
func TestEscapeOverwrite(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		keeper, err := buildKeeper()
		if err != nil {
			t.Fatal(err)
		}
		sum := func() string {
			b, err := os.ReadFile(keeper)
			if err != nil {
				t.Fatal(err)
			}
			copies, _ := filepath.Glob(filepath.Join(w.root, "keeper", "*"))
			for _, c := range copies {
				more, err := os.ReadFile(c)
				if err == nil {
					b = append(b, more...)
				}
			}
			return fmt.Sprintf("%x", sha256.Sum256(b))
		}
		before := sum()
		trap := filepath.Join(w.lower, "bin/trap") // whoever runs it runs whatever has entered
		if err := os.WriteFile(trap, []byte("#!/proc/self/exe\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		// As root with everything that an attacker could wish for.
		c := w.attack(mapped, spec.Container{CapAdd: []string{"DAC_READ_SEARCH", "SYS_PTRACE"}}, "/attacker", "exe")
		w.start(c)
		var execs sync.WaitGroup
		for range 2 {
			execs.Go(func() {
				for range 6 {
					w.rt.Exec(w.ctx(), c.ID(), runtime.Process{Args: []string{"/bin/trap"}}) // it may fail as it likes
				}
			})
		}
		execs.Wait()
		w.finish(c)
		if text := w.text(c); !strings.Contains(text, "overwritten: 0\n") {
			t.Errorf("output %q", text)
		}
		self := w.attack(mapped, spec.Container{}, "/proc/self/exe", "wherry-init", "x", "/bin/true")
		if _, err := w.rt.Start(w.ctx(), self); err == nil {
			w.finish(self)
		}
		if sum() != before {
			t.Error("the keeper's binary has changed")
		}
	})
}

// The kernel's files that could change the host cannot be written, those that tell of it
// not be read.
func TestEscapeKernelFiles(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		args := []string{"/attacker"}
		for _, p := range []string{
			"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/suid_dumpable",
			"/proc/sys/kernel/ns_last_pid", "/proc/sysrq-trigger", "/proc/irq/0/smp_affinity", "/proc/irq/default_smp_affinity", "/proc/bus/pci/00", "/proc/fs/ext4",
			"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/1/mem",
			"/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state", "/sys/module/kernel/parameters/panic", "/sys/block",
			"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
			"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/devices/devices.allow", "/sys/fs/cgroup/cgroup.subtree_control", "/sys/kernel/security/apparmor/.load",
		} {
			args = append(args, "write="+p)
		}
		c := w.attack(mapped, spec.Container{}, args...)
		repelled(t, w.output(c), 29)
		args = []string{"/attacker"}
		for _, p := range []string{
			"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/acpi", "/proc/scsi", "/proc/latency_stats", "/proc/sched_debug", "/sys/firmware",
			"/sys/devices/virtual/powercap", "/proc/1/environ", "/proc/1/maps",
		} {
			args = append(args, "read="+p)
		}
		c = w.attack(mapped, spec.Container{}, args...)
		repelled(t, w.output(c), 12)
	})
}

// No way out by mounts, devices, tracing, keys or namespaces, also for root with as much as
// Docker's users usually add.
func TestEscapeSystemCalls(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		for _, c := range []struct {
			verb  string
			least int
		}{{"mounts", 10}, {"trace", 4}, {"keys", 2}, {"namespaces", 7}, {"devices", 9}} {
			t.Run(c.verb, func(t *testing.T) {
				v := w.on(t)
				text := v.output(v.attack(mapped, spec.Container{}, "/attacker", c.verb))
				repelled(t, text, c.least)
			})
		}
		// Without the filter and with all capabilities but the mightiest the device rules hold by themselves.
		c := w.attack(mapped, spec.Container{Seccomp: spec.Unconfined, CapAdd: []string{"ALL"}, CapDrop: []string{"SYS_ADMIN", "NET_ADMIN"}}, "/attacker", "devices")
		repelled(t, w.output(c), 9)
	})
}

// no_new_privs is set, and a container has a session keyring of its own.
func TestEscapeProcessState(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		c := w.attack(mapped, spec.Container{}, "sh", "-c", "grep -h -E '^(NoNewPrivs|Seccomp):' /proc/self/status /proc/1/status; grep -E '^Cap(Inh|Amb)' /proc/self/status")
		want := "NoNewPrivs:\t1\nSeccomp:\t2\nNoNewPrivs:\t1\nSeccomp:\t2\nCapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n"
		if got := w.output(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		var ids [2]string
		for i := range ids {
			c := w.attack(mapped, spec.Container{Seccomp: spec.Unconfined}, "/attacker", "session")
			ids[i] = results(w.output(c))["session"]
		}
		if ids[0] == ids[1] || !strings.HasSuffix(ids[0], " ok") {
			t.Errorf("session keyrings %q", ids)
		}
	})
}

// An image whose folders are links leads no mount, mask or copy out of it
// (CVE-2019-16884, CVE-2021-30465, CVE-2023-27561, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).
func TestEscapeLinks(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		host := filepath.Join(filepath.Dir(w.root), "outside")
		if err := os.MkdirAll(host, 0o777); err != nil {
			t.Fatal(err)
		}
		secret := filepath.Join(host, "secret")
		if err := os.WriteFile(secret, []byte("of the host\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		inside := filepath.Join(filepath.Dir(w.root), "volume")
		if err := os.MkdirAll(inside, 0o777); err != nil {
			t.Fatal(err)
		}
		for link, target := range map[string]string{"evil": host, "up": "../../../../../../../../.." + host, "evil-file": secret} {
			if err := os.Symlink(target, filepath.Join(w.lower, link)); err != nil {
				t.Fatal(err)
			}
		}
		c := w.attack(mapped, spec.Container{Mounts: []specs.Mount{
			bind(inside, "/evil/made"), bind(inside, "/up/also"), {Destination: "/evil/tmpfs", Type: "tmpfs", Source: "tmpfs"}, bind(inside, "/evil-file/x"),
		}}, "sh", "-c", "cat /evil/secret /evil-file 2>/dev/null; true")
		if _, err := w.rt.Start(w.ctx(), c); err == nil {
			w.finish(c)
			if text := w.text(c); strings.Contains(text, "of the host") {
				t.Error("the container reads the host's file")
			}
		}
		c = w.attack(mapped, spec.Container{}, "true")
		c.Populate = []runtime.Populate{{Path: "/evil", Into: inside}}
		if _, err := w.rt.Start(w.ctx(), c); err == nil {
			w.finish(c)
		}
		entries, _ := os.ReadDir(host)
		if b, _ := os.ReadFile(secret); len(entries) != 1 || string(b) != "of the host\n" {
			t.Errorf("on the host: %v %q", entries, b)
		}
		if left, _ := os.ReadDir(inside); len(left) > 0 {
			t.Errorf("copied into the volume: %v", left)
		}
	})
}

// An image that brings its own /dev/null or /proc cannot have the masks point elsewhere.
func TestEscapeMasks(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		for name, change := range map[string]func(s *specs.Spec){
			"no /dev":      func(s *specs.Spec) { s.Mounts = slices.DeleteFunc(s.Mounts, below("/dev")) },
			"link as proc": func(*specs.Spec) { link(t, "/tmp", filepath.Join(w.lower, "proc")) },
		} {
			link(t, "/proc/sys/kernel/core_pattern", filepath.Join(w.lower, "dev/null"))
			link(t, "/proc/sysrq-trigger", filepath.Join(w.lower, "dev/console"))
			c := w.attack(mapped, spec.Container{}, "/attacker", "write=/proc/sys/kernel/core_pattern", "write=/proc/sysrq-trigger", "write=/proc/kcore", "read=/proc/keys")
			change(c.Spec)
			if _, err := w.rt.Start(w.ctx(), c); err != nil {
				continue // refused altogether
			}
			w.finish(c)
			repelled(t, w.text(c), 0)
			if name == "no /dev" && len(results(w.text(c))) != 4 {
				t.Errorf("%s: %q", name, w.text(c))
			}
		}
	})
}

func below(dir string) func(specs.Mount) bool {
	return func(m specs.Mount) bool { return m.Destination == dir || strings.HasPrefix(m.Destination, dir+"/") }
}

// link puts a link in the place of whatever is there.
func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.RemoveAll(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}
