package runtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// idBase is where the ids of these tests begin on the host: above those of systemd
// and of users, and below what the product leases.
const idBase = 1900000000

// passable lets root of a user namespace get to the keeper's run folder.
func (w *world) passable() {
	w.tb.Helper()
	if err := os.Chmod(filepath.Dir(w.run), 0o711); err != nil {
		w.tb.Fatal(err)
	}
}

// mapped is a container in a user namespace, whose other namespaces are made too.
func (w *world) mapped(n runtime.Namespaces, args ...string) runtime.Config {
	w.tb.Helper()
	c := w.config(args...)
	w.share(&c, n)
	return c
}

// share makes the namespaces of c's run.
func (w *world) share(c *runtime.Config, n runtime.Namespaces) {
	w.tb.Helper()
	n.Run = c.Run
	f, err := w.rt.MakeNamespaces(w.ctx(), n)
	if err != nil {
		w.tb.Fatalf("namespaces: %v\n%s", err, w.keeperLog())
	}
	if f != nil {
		f.Close()
	}
	w.tb.Cleanup(func() {
		if err := w.rt.ReleaseNamespaces(w.ctx(), c.Run); err != nil {
			w.tb.Errorf("release: %v", err)
		}
		if left, _ := os.ReadDir(filepath.Join(w.run, "ns")); len(left) > 0 {
			w.tb.Errorf("left in ns: %v", left)
		}
	})
	c.Join, c.IDMap = true, n.IDMap
}

func ids(base uint32) *runtime.IDMap { return &runtime.IDMap{HostID: base, Size: 65536} }

// output runs c to its end and returns what it wrote.
func (w *world) output(c runtime.Config) string {
	w.tb.Helper()
	w.start(c)
	if exit := w.finish(c); exit.Code != 0 || exit.Signal != "" {
		w.tb.Fatalf("ended with %+v:\n%s\n%s", exit, w.text(c), w.keeperLog())
	}
	return w.text(c)
}

func TestUserNamespace(t *testing.T) {
	w := newWorld(t)
	w.passable()
	c := w.mapped(runtime.Namespaces{IDMap: ids(idBase), Net: true}, "sh", "-c",
		"cat /proc/self/uid_map; id -u; stat -c %u:%g /bin/busybox /data/a /; touch /made; stat -c %u /made; echo x >/dev/stdout; cat /proc/self/setgroups")
	c.Rootfs = w.fileOwners(c.Rootfs)
	out := w.output(c)
	want := fmt.Sprintf("%d", idBase)
	f := strings.Fields(out)
	if len(f) < 9 || f[0] != "0" || f[1] != want || f[2] != "65536" {
		t.Fatalf("output:\n%s", out)
	}
	if got := strings.Join(f[3:], " "); got != "0 0:0 1000:1001 0:0 0 x allow" {
		t.Errorf("ids inside: %s", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(w.root, "overlay", c.Run, "upper", "made"), &st); err != nil || st.Uid != idBase {
		t.Errorf("on the host: %d, %v", st.Uid, err)
	}
}

// fileOwners gives data/a of the layer an owner.
func (w *world) fileOwners(mounts []specs.Mount) []specs.Mount {
	w.tb.Helper()
	if err := os.Chown(filepath.Join(w.lower, "data/a"), 1000, 1001); err != nil {
		w.tb.Fatal(err)
	}
	return mounts
}

// owner asks the kernel which user namespace a namespace of pid belongs to.
func owner(tb testing.TB, pid int, name string) uint64 {
	tb.Helper()
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if name != "user" {
		if fd, err = unix.IoctlRetInt(fd, unix.NS_GET_USERNS); err != nil {
			tb.Fatal(err)
		}
		defer unix.Close(fd)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		tb.Fatal(err)
	}
	return st.Ino
}

func TestNamespacesBelongToTheUserNamespace(t *testing.T) {
	w := newWorld(t)
	w.passable()
	c := w.mapped(runtime.Namespaces{IDMap: ids(idBase), Net: true, IPC: true, UTS: true, PID: true, Pin: true, Hostname: "box"}, "sleep", "1000")
	st := w.start(c)
	user := owner(t, st.Pid, "user")
	for _, name := range []string{"net", "ipc", "uts", "pid", "mnt", "cgroup"} {
		if got := owner(t, st.Pid, name); got != user {
			t.Errorf("%s belongs to %d, not %d", name, got, user)
		}
	}
	w.rt.Kill(w.ctx(), c.ID())
	w.finish(c)
}

// BenchmarkStart compares pairs of starts: with the network namespace alone, and
// with a user namespace.
func BenchmarkUserNamespace(b *testing.B) {
	w := newWorld(b)
	w.passable()
	var took [2]time.Duration
	var making [2]time.Duration
	once := func(n runtime.Namespaces) (time.Duration, time.Duration) {
		c := w.config("true")
		n.Run = c.Run
		began := time.Now()
		f, err := w.rt.MakeNamespaces(w.ctx(), n)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
		made := time.Since(began)
		c.Join, c.IDMap = true, n.IDMap
		w.start(c)
		w.finish(c)
		if err := w.rt.ReleaseNamespaces(w.ctx(), c.Run); err != nil {
			b.Fatal(err)
		}
		return made, time.Since(began)
	}
	for b.Loop() {
		for i, n := range []runtime.Namespaces{{Net: true}, {Net: true, IDMap: ids(idBase)}} {
			made, all := once(n)
			making[i] += made
			took[i] += all
		}
	}
	for i, name := range []string{"without", "with"} {
		b.ReportMetric(float64(took[i].Microseconds())/float64(b.N)/1000, "ms-"+name)
		b.ReportMetric(float64(making[i].Microseconds())/float64(b.N)/1000, "ms-making-"+name)
	}
	b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
}
