package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// inode identifies a namespace.
func nsInode(tb testing.TB, pid int, name string) uint64 {
	tb.Helper()
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, name), &st); err != nil {
		tb.Fatal(err)
	}
	return st.Ino
}

// sibling is a further container in c's run.
func (w *world) sibling(c runtime.Config, name string, args ...string) runtime.Config {
	w.tb.Helper()
	d := w.config(args...)
	d.Instance, d.Run, d.Container, d.Join, d.IDMap = c.Instance, c.Run, name, true, c.IDMap
	d.Log.Path = c.Log.Path + "." + name
	return d
}

var everything = runtime.Namespaces{Net: true, IPC: true, UTS: true, PID: true, Pin: true, Hostname: "box"}

// withShm adds what the specification has for /dev/shm.
func withShm(c runtime.Config) runtime.Config {
	c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=1m"}})
	return c
}

// sharedCase runs a test with a user namespace and without.
func sharedCase(t *testing.T, test func(*testing.T, *world, runtime.Namespaces)) {
	for name, m := range map[string]*runtime.IDMap{"mapped": ids(idBase), "host": nil} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.passable()
			n := everything
			n.IDMap = m
			test(t, w, n)
		})
	}
}

func TestContainersShareNamespaces(t *testing.T) {
	sharedCase(t, func(t *testing.T, w *world, n runtime.Namespaces) {
		a := withShm(w.mapped(n, "sh", "-c", "echo from a >/dev/shm/note; echo noted; exec sleep 1000"))
		st := w.start(a)
		w.says(a, "noted")
		b := withShm(w.sibling(a, "b", "sh", "-c",
			"cat /dev/shm/note; stat -c %a:%u /dev/shm; grep -c . /proc/1/comm; cat /proc/1/comm; ls /proc/1/root/ 2>&1 | grep -c denied; kill -9 1; kill -TERM 1; exec sleep 1000"))
		stb := w.start(b)
		for _, name := range []string{"user", "net", "ipc", "uts", "pid"} {
			if x, y := nsInode(t, st.Pid, name), nsInode(t, stb.Pid, name); x != y {
				t.Errorf("%s is not shared: %d, %d", name, x, y)
			}
		}
		w.await("output of b", func() bool { return strings.Count(w.text(b), "\n") >= 5 })
		if got := w.text(b); got != "from a\n1777:0\n1\nwherry-holder\n1\n" {
			t.Errorf("b sees %q", got)
		}
		if err := w.rt.ReleaseNamespaces(w.ctx(), a.Run); !errors.Is(err, runtime.ErrBusy) {
			t.Errorf("release with containers in the PID namespace: %v", err)
		}
		w.endAll(a, b)
	})
}

func (w *world) endAll(list ...runtime.Config) {
	w.tb.Helper()
	for _, c := range list {
		if err := w.rt.Kill(w.ctx(), c.ID()); err != nil {
			w.tb.Errorf("kill: %v", err)
		}
		w.finish(c)
	}
}

func TestSharedNamespacesSurviveTheKeeper(t *testing.T) {
	for _, how := range []string{"killed", "upgraded"} {
		t.Run(how, func(t *testing.T) {
			sharedCase(t, func(t *testing.T, w *world, n runtime.Namespaces) {
				a := withShm(w.mapped(n, "sh", "-c", "echo from a >/dev/shm/note; echo noted; exec sleep 1000"))
				before := w.start(a)
				w.says(a, "noted")
				w.replaceKeeper(how)
				b := withShm(w.sibling(a, "b", "sh", "-c", "cat /dev/shm/note; exec sleep 1000"))
				after := w.start(b)
				for _, name := range []string{"user", "net", "ipc", "uts", "pid"} {
					if x, y := nsInode(t, before.Pid, name), nsInode(t, after.Pid, name); x != y {
						t.Errorf("%s is another one: %d, %d", name, x, y)
					}
				}
				w.await("b", func() bool { return w.text(b) == "from a\n" })
				w.endAll(a, b)
				// Pins hold what no container is in any more.
				c := w.sibling(a, "c", "true")
				w.start(c)
				w.finish(c)
			})
		})
	}
}

// replaceKeeper puts another keeper into the place of this one.
func (w *world) replaceKeeper(how string) {
	w.tb.Helper()
	if how == "killed" {
		killKeeper(w)
		if _, err := w.rt.List(w.ctx()); err != nil {
			w.tb.Fatal(err)
		}
		return
	}
	if err := w.rt.Upgrade(w.ctx(), builtKeeper); err != nil {
		w.tb.Fatal(err)
	}
}

// An upgrade finds what is held for a container that is not there yet.
func TestUnpinnedNamespacesSurviveAnUpgrade(t *testing.T) {
	w := newWorld(t)
	w.passable()
	c := w.mapped(runtime.Namespaces{IDMap: ids(idBase), Net: true}, "true")
	w.replaceKeeper("upgraded")
	w.output(c)
}

// A keeper that dies before there is a container leaves nothing.
func TestNamespacesOfNobodyAreSwept(t *testing.T) {
	w := newWorld(t)
	w.passable()
	n := everything
	n.IDMap = ids(idBase)
	c := w.mapped(n, "true")
	if len(w.holders()) != 1 {
		t.Errorf("holders: %v", w.holders())
	}
	killKeeper(w)
	if _, err := w.rt.List(w.ctx()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(w.run, "ns")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := w.rt.Start(w.ctx(), c); err == nil {
		t.Error("a container joined what is gone")
	}
	w.await("the end of the holder", func() bool { return len(w.holders()) == 0 }) // whoever reaps it takes its time
}

func TestMakeNamespacesRefuses(t *testing.T) {
	w := newWorld(t)
	for _, n := range []runtime.Namespaces{
		{Run: "../x", Net: true}, {Run: "r"}, {Run: "r", Net: true, IDMap: &runtime.IDMap{Size: 1}}, {Run: "r", Net: true, IDMap: &runtime.IDMap{HostID: 1}},
		{Run: "r", Net: true, IDMap: &runtime.IDMap{HostID: 4294900000, Size: 100000}},
	} {
		if _, err := w.rt.MakeNamespaces(w.ctx(), n); err == nil {
			t.Errorf("%+v: made", n)
		}
	}
	c := w.mapped(runtime.Namespaces{Net: true}, "true")
	if _, err := w.rt.MakeNamespaces(w.ctx(), runtime.Namespaces{Run: c.Run, Net: true}); !errors.Is(err, runtime.ErrExists) {
		t.Errorf("again: %v", err)
	}
	// The test's folder is closed to others.
	d := w.mapped(runtime.Namespaces{IDMap: ids(idBase), Net: true}, "true")
	if _, err := w.rt.Start(w.ctx(), d); err == nil || !strings.Contains(err.Error(), "closed to others") {
		t.Errorf("behind a closed folder: %v", err)
	}
}

func TestExecInUserNamespace(t *testing.T) {
	w := newWorld(t)
	w.passable()
	c := w.mapped(runtime.Namespaces{IDMap: ids(idBase), Net: true}, "sleep", "1000")
	st := w.start(c)
	out, exit, err := w.exec(c.ID(), runtime.Process{Args: []string{"sh", "-c", "id -u; id -g; cat /proc/self/uid_map; touch /tmp/x; stat -c %u /tmp/x"}, User: "web"})
	if err != nil || exit.Code != 0 {
		// /tmp of the layer is root's: only that may fail
		t.Logf("%v %+v", err, exit)
	}
	if f := strings.Fields(out); len(f) < 5 || f[0] != "1000" || f[1] != "1001" || f[3] != fmt.Sprint(idBase) {
		t.Errorf("exec says %q", out)
	}
	if nsInode(t, st.Pid, "user") == nsInode(t, os.Getpid(), "user") {
		t.Error("it is in the host's user namespace")
	}
	w.endAll(c)
}

// Volumes are stored with the owners that containers see, whatever ids they have.
func TestVolumesKeepOwners(t *testing.T) {
	w := newWorld(t)
	w.passable()
	if err := os.Chown(filepath.Join(w.lower, "data/a"), 1000, 1001); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(w.root, "volumes")
	dir := filepath.Join(closed, "v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(m *runtime.IDMap, script string) string {
		c := w.mapped(runtime.Namespaces{IDMap: m, Net: true}, "sh", "-c", script)
		c.Spec.Mounts = append(c.Spec.Mounts, bind(dir, "/data", "rprivate", "ridmap"))
		c.Populate = []runtime.Populate{{Path: "/data", Into: dir}}
		return w.output(c)
	}
	if got := run(ids(idBase), "stat -c %u:%g /data/a /data/sub; echo 1 >/data/made"); got != "1000:1001\n0:0\n" {
		t.Errorf("first run sees %q", got)
	}
	for name, want := range map[string][2]uint32{"a": {1000, 1001}, "sub": {0, 0}, "made": {0, 0}} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil || st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%s on the host: %d:%d, %v", name, st.Uid, st.Gid, err)
		}
	}
	want := "1000:1001\n0:0\n0:0\n"
	if got := run(ids(idBase+1<<16), "stat -c %u:%g /data/a /data/sub /data/made; echo 2 >>/data/made"); got != want {
		t.Errorf("with other ids it sees %q", got)
	}
	if got := run(nil, "stat -c %u:%g /data/a /data/sub /data/made"); got != want {
		t.Errorf("with the host's ids it sees %q", got)
	}
}

func TestErofsLayersInUserNamespaces(t *testing.T) {
	w := newWorld(t)
	w.passable()
	if err := os.Chown(filepath.Join(w.lower, "data/a"), 1000, 1001); err != nil {
		t.Fatal(err)
	}
	image, mnt := w.erofs()
	script := []string{"sh", "-c", "stat -c %u:%g /data/a /bin/busybox; busybox chown 5:6 /data/a; stat -c %u:%g /data/a"}
	for i := range uint32(2) {
		c := w.onLayer(image, mnt, script...)
		w.share(&c, runtime.Namespaces{IDMap: ids(idBase + i<<16), Net: true})
		if got := w.output(c); got != "1000:1001\n0:0\n5:6\n" {
			t.Errorf("it sees %q", got)
		}
	}
	w.await("the layer's release", func() bool { return unused(image) })
}

// What programs expect of their network and of /sys works with the powers of a user namespace.
func TestUserNamespaceNetwork(t *testing.T) {
	w := newWorld(t)
	w.passable()
	c := w.mapped(runtime.Namespaces{IDMap: ids(idBase), Net: true}, "sh", "-c",
		"cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/sys/net/ipv4/ping_group_range; ls /sys/class/net; stat -f -c %T /sys; touch /sys/kernel/x 2>&1 | grep -c -i read-only")
	c.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
	got := strings.Fields(w.output(c))
	if want := "0 0 65535 lo sysfs 1"; strings.Join(got, " ") != want {
		t.Errorf("it sees %q, not %q", got, want)
	}
}

// A bind that cannot be shifted fails, and says so.
func TestBindThatCannotBeShifted(t *testing.T) {
	w := newWorld(t)
	w.passable()
	c := w.mapped(runtime.Namespaces{IDMap: ids(idBase), Net: true}, "true")
	c.Spec.Mounts = append(c.Spec.Mounts, bind("/proc/sys", "/mnt", "rprivate", "idmap"))
	_, err := w.rt.Start(w.ctx(), c)
	var se *runtime.StepError
	if !errors.As(err, &se) || se.Step != runtime.StepRootfs || !strings.Contains(err.Error(), "/proc/sys") {
		t.Errorf("start: %v", err)
	}
}

// holders are the processes that hold PID namespaces for this test's keepers.
func (w *world) holders() (pids []string) {
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, n := range names {
		groups, _ := os.ReadFile(filepath.Join(filepath.Dir(n), "cgroup"))
		if b, _ := os.ReadFile(n); string(b) == "wherry-holder\n" && strings.Contains(string(groups), w.group+"/") {
			pids = append(pids, filepath.Base(filepath.Dir(n)))
		}
	}
	return pids
}

// Whoever calls the making off, or dies over it, can let go of what was made, at any moment of it.
func TestNamespacesCalledOff(t *testing.T) {
	w := newWorld(t)
	w.passable()
	for _, how := range []string{"client gone", "called off"} {
		for i := range 40 {
			n := runtime.Namespaces{Run: w.config("true").Run, IDMap: ids(idBase), Net: true}
			ctx, cancel := context.WithCancel(w.ctx())
			rt, end := w.rt, cancel
			if how == "client gone" {
				rt = w.open(builtKeeper)
				if _, err := rt.List(ctx); err != nil {
					t.Fatal(err)
				}
				end = func() { rt.Close() }
			}
			var over sync.WaitGroup
			over.Go(func() {
				if f, err := rt.MakeNamespaces(ctx, n); err == nil && f != nil {
					f.Close()
				}
			})
			time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			end()
			if how == "called off" {
				over.Wait() // as a start does
			}
			if err := w.rt.ReleaseNamespaces(w.ctx(), n.Run); err != nil {
				t.Fatal(err)
			}
			over.Wait()
			cancel()
		}
		held := func() (l []string) {
			all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.rt.KeeperPid()))
			for _, fd := range all {
				if to, _ := os.Readlink(fd); strings.HasPrefix(to, "user:") || strings.HasPrefix(to, "net:") {
					l = append(l, to)
				}
			}
			return l
		}
		w.await(how+": the end of all namespaces", func() bool { return len(held()) == 0 })
	}
}
