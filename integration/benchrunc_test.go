package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/integration/harness"
	"github.com/wherry-run/wherry/runtime/spec"
)

// TestBenchRunc measures `run --rm` of wherry beside `runc run` of a prepared bundle with the same
// namespaces, id mapping, limits, capabilities, masks and seccomp profile, and beside our own OCI command line with that
// bundle, in turn. It runs only when WHERRY_BENCH_RUNC says how often. WHERRY_RUNC
// names runc, best one of release 1.5; one in PATH is taken if it does not.
func TestBenchRunc(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("WHERRY_BENCH_RUNC"))
	if n == 0 {
		t.Skip("a measurement, not a test: scripts/bench runc")
	}
	runc := os.Getenv("WHERRY_RUNC")
	if runc == "" {
		runc = "runc"
	}
	version, err := exec.Command(runc, "--version").Output()
	if err != nil {
		t.Skip(err)
	}
	o := newOCI(t)
	image := registry(t).Ref("busybox")
	h := harness.StartHost(t)
	ctl := []string{h.Bin + "/wherry", "ctl", "--socket", h.Socket}
	wherry := &peer{name: "wherry", cli: ctl, figure: map[string][]float64{}}
	wherry.run(t, "pull", "-q", image)

	bundle := o.twin(h, image)
	state := filepath.Join(o.dir, "runc")
	peers := []*peer{
		wherry,
		{name: "runc", cli: []string{runc, "--root", state}, figure: map[string][]float64{}},
		{name: "wherry-oci", cli: []string{o.exe, "--root", o.root}, figure: map[string][]float64{}},
	}
	const figure = "run, host network, ms"
	inTurn(peers, n, func(p *peer) {
		if p == wherry {
			p.take(t, figure, 1e3, "run", "--rm", "--net", "host", image, "true")
			return
		}
		p.take(t, figure, 1e3, "run", "-b", bundle, "b")
	})
	lines := []string{"runc is " + strings.SplitN(string(version), "\n", 2)[0]}
	base := median(peers[1].figure[figure])
	for _, p := range peers {
		f := p.figure[figure]
		slices.Sort(f)
		lines = append(lines, fmt.Sprintf("%-11s median %6.1f ms  quietest %6.1f  %.2f times runc", p.name, median(f), f[0], median(f)/base))
	}
	t.Log("\n" + strings.Join(lines, "\n"))
}

// twin writes a bundle that is like what wherry makes of `run --net host`: the
// namespaces and the mapping of ids are read from a running container.
func (o *ociHost) twin(h *harness.Host, image string) string {
	t := o.t
	h.OK("run", "-d", "--name", "twin", "--net", "host", image, "sleep", "1000")
	defer h.OK("rm", "-f", "twin")
	var pid int
	harness.Eventually(t, 20*time.Second, "a running twin", func() bool {
		pid = childOf("wherry-init", "sleep")
		return pid > 0
	})
	res, err := spec.Build(spec.Image{Env: []string{"PATH=/bin:/sbin"}}, spec.Container{
		Command: []string{"true"}, Network: spec.Host, Machine: spec.Machine{CPUs: goruntime.NumCPU()},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := res.Spec
	s.Root = &specs.Root{Path: filepath.Join(o.dir, "rootfs")}
	s.Linux.CgroupsPath = o.parent + "/b"
	if c := s.Process.Capabilities; c != nil && len(c.Permitted) == 0 { // the keeper gives root what it may have
		c.Permitted, c.Effective = c.Bounding, c.Bounding
	}
	s.Linux.Namespaces = namespacesOf(t, pid)
	s.Linux.UIDMappings, s.Linux.GIDMappings = mappingOf(t, pid, "uid_map"), mappingOf(t, pid, "gid_map")
	if s.Linux.UIDMappings != nil {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		host := strconv.Itoa(int(s.Linux.UIDMappings[0].HostID))
		if out, err := exec.Command("chown", "-R", host+":"+host, s.Root.Path).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for d := o.dir; d != "/"; d = filepath.Dir(d) { // the mapped root has to get there
			if st, err := os.Stat(d); err == nil {
				os.Chmod(d, st.Mode().Perm()|0o011)
			}
		}
	}
	dir := filepath.Join(o.dir, "twin")
	b, err := json.Marshal(s)
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// childOf finds a process by its name whose parent has another.
func childOf(parent, name string) int {
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, p := range comms {
		if b, _ := os.ReadFile(p); strings.TrimSpace(string(b)) != name {
			continue
		}
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "status"))
		m := regexp.MustCompile(`(?m)^PPid:\s+(\d+)`).FindSubmatch(status)
		if m == nil {
			continue
		}
		if b, _ := os.ReadFile("/proc/" + string(m[1]) + "/comm"); strings.TrimSpace(string(b)) == parent {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			return pid
		}
	}
	return 0
}

// namespacesOf are those that the process does not share with us, but for the user namespace.
func namespacesOf(t testing.TB, pid int) (l []specs.LinuxNamespace) {
	for file, kind := range map[string]specs.LinuxNamespaceType{
		"mnt": specs.MountNamespace, "pid": specs.PIDNamespace, "ipc": specs.IPCNamespace, "uts": specs.UTSNamespace,
		"net": specs.NetworkNamespace, "cgroup": specs.CgroupNamespace, "time": specs.TimeNamespace,
	} {
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, file))
		if err != nil {
			continue
		}
		if ours, err := os.Readlink("/proc/self/ns/" + file); err != nil {
			t.Fatal(err)
		} else if its != ours {
			l = append(l, specs.LinuxNamespace{Type: kind})
		}
	}
	return l
}

// mappingOf reads a process's mapping of ids; nil for the host's own.
func mappingOf(t testing.TB, pid int, file string) (l []specs.LinuxIDMapping) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); err != nil {
			t.Fatal(err)
		}
		if m.ContainerID == 0 && m.HostID == 0 {
			return nil
		}
		l = append(l, m)
	}
	return l
}
