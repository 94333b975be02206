package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fakeTree is a host whose groups are ordinary folders.
func fakeTree(t *testing.T, mode Mode, files map[string]string) *host {
	t.Helper()
	root := t.TempDir()
	h := &host{mode: mode, unified: root}
	if mode == Legacy {
		h.unified, h.v1 = "", map[string]string{}
		for _, c := range []string{"memory", "cpu", "cpuset", "pids", "blkio", "freezer"} {
			h.v1[c] = root
		}
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *host) fakeFile(t *testing.T, name string) string {
	t.Helper()
	root := h.unified
	if h.mode == Legacy {
		root = h.v1["memory"]
	}
	b, err := os.ReadFile(filepath.Join(root, "app", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var everything = Limits{
	Memory: 64 << 20, MemoryReservation: 16 << 20, Swap: 8 << 20, CPUs: 1.5, CPUShares: 512, CpusetCPUs: "0", CpusetMems: "0", Pids: 9,
	IO: IO{Weight: 200, ReadBytes: []Rate{{"8:0", 1000}}, Writes: []Rate{{"8:0", 50}}},
}

// An ordinary file keeps the end of a longer value that is written over.
func first(text string) string { line, _, _ := strings.Cut(text, "\n"); return line }

func TestSetUnified(t *testing.T) {
	h := fakeTree(t, Unified, map[string]string{
		"app/memory.current": "1\n", "app/memory.max": "max\n", "app/memory.swap.max": "max\n", "app/memory.high": "max\n", "app/memory.low": "0\n",
		"app/cpu.max": "max 100000\n", "app/cpu.weight": "1\n", "app/cpuset.cpus": "\n", "app/cpuset.mems": "\n", "app/pids.max": "max\n",
		"app/io.max": "", "app/io.weight": "default 1\n", "app/hugetlb.2MB.max": "max\n",
	})
	l := everything
	l.MemoryHigh, l.Hugepages = 32<<20, map[string]int64{"2MB": 4 << 20}
	if err := h.setLimits("/app", l); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"memory.max": "67108864", "memory.swap.max": "8388608", "memory.high": "33554432", "memory.low": "16777216", "cpu.max": "150000 100000",
		"cpu.weight": "59", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "9", "io.max": "8:0 rbps=1000 wbps=max riops=max wiops=50",
		"io.weight": "1920", "hugetlb.2MB.max": "4194304",
	} {
		if got := h.fakeFile(t, name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestSetLegacy(t *testing.T) {
	h := fakeTree(t, Legacy, map[string]string{
		"memory.memsw.limit_in_bytes": "1\n", "app/memory.limit_in_bytes": "9223372036854771712\n", "app/memory.memsw.limit_in_bytes": "9223372036854771712\n",
		"app/memory.soft_limit_in_bytes": "-1\n", "app/cpu.cfs_period_us": "1\n", "app/cpu.cfs_quota_us": "-1\n", "app/cpu.shares": "2\n",
		"app/cpuset.cpus": "\n", "app/cpuset.mems": "\n", "app/pids.max": "max\n", "app/blkio.bfq.weight": "1\n",
		"app/blkio.throttle.read_bps_device": "", "app/blkio.throttle.write_bps_device": "", "app/blkio.throttle.read_iops_device": "8:16 7\n", "app/blkio.throttle.write_iops_device": "",
	})
	if err := h.setLimits("/app", everything); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "75497472", "memory.soft_limit_in_bytes": "16777216",
		"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000", "cpu.shares": "512", "cpuset.cpus": "0", "pids.max": "9", "blkio.bfq.weight": "200",
		"blkio.throttle.read_bps_device": "8:0 1000", "blkio.throttle.read_iops_device": "8:16 0", "blkio.throttle.write_iops_device": "8:0 50",
	} {
		if got := first(h.fakeFile(t, name)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	high := everything
	high.MemoryHigh = 32 << 20
	if err := h.setLimits("/app", high); err == nil || !strings.Contains(err.Error(), `cgroup v1 controller "memory"`) {
		t.Errorf("memory_high: %v", err)
	}
}

// What was written before the one that fails is put back.
func TestSetIsAllOrNothing(t *testing.T) {
	h := fakeTree(t, Unified, map[string]string{
		"app/memory.current": "1\n", "app/memory.max": "111111111\n", "app/memory.swap.max": "0\n", "app/memory.high": "max\n", "app/memory.low": "0\n",
		"app/cpu.max": "max 100000\n", "app/cpu.weight": "100\n", "app/cpuset.cpus": "0\n", "app/cpuset.mems": "0\n",
	})
	err := h.setLimits("/app", Limits{Memory: 222222222, Pids: 5})
	if err == nil || !strings.Contains(err.Error(), `limit pids: the cgroup v2 controller "pids" is not available`) {
		t.Errorf("got %v", err)
	}
	if got := h.fakeFile(t, "memory.max"); !strings.HasPrefix(got, "111111111") {
		t.Errorf("memory.max stays %q", got)
	}
}

func TestMemoryThatIsInUse(t *testing.T) {
	h := fakeTree(t, Unified, map[string]string{"app/memory.current": "99999999\n", "app/memory.max": "max\n", "app/memory.high": "max\n"})
	err := h.setLimits("/app", Limits{Memory: 8 << 20})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "95.4MiB, which cannot be taken back to 8MiB") {
		t.Errorf("got %v", err)
	}
	if got := h.fakeFile(t, "memory.max"); got != "max\n" {
		t.Errorf("memory.max is %q", got)
	}
}

func TestResourcesThereAndBack(t *testing.T) {
	l := everything
	l.MemoryHigh, l.Hugepages = 32<<20, map[string]int64{"2MB": 4 << 20, "1GB": 0}
	if got := FromResources(l.Resources()); !got.Equal(l) {
		t.Errorf("got %+v, want %+v", got, l)
	}
	if got := FromResources(&specs.LinuxResources{}); !got.Equal(Limits{}) {
		t.Errorf("got %+v", got)
	}
	reserved := Limits{CPUReservation: 0.5}
	if got := FromResources(reserved.Resources()); got.CPUShares != 512 {
		t.Errorf("got %+v", got)
	}
}

func TestNeedsNameController(t *testing.T) {
	l := Limits{IO: IO{Reads: []Rate{{"8:0", 1}}}}
	if err := l.checkAgainst([]string{"memory"}, Legacy); err == nil || err.Error() != `blkio_config.device_read_iops: the cgroup v1 controller "blkio" is not available to us` {
		t.Errorf("got %v", err)
	}
	l = Limits{Hugepages: map[string]int64{"2MB": 0}}
	if err := l.checkAgainst([]string{"memory"}, Unified); err == nil || err.Error() != `resources.limits.hugepages 2MB: the cgroup v2 controller "hugetlb" is not available to us` {
		t.Errorf("got %v", err)
	}
	if err := (Limits{MemoryHigh: 1 << 30}).checkAgainst(v1Controllers, Legacy); err == nil || !strings.Contains(err.Error(), "memory_high") {
		t.Errorf("got %v", err)
	}
}

func TestCheckSets(t *testing.T) {
	h := fakeTree(t, Unified, map[string]string{"app/cpuset.cpus.effective": "0-1\n", "app/cpuset.mems.effective": "0\n"})
	if err := (Limits{CpusetCPUs: "0-1", CpusetMems: "0"}).checkSets(h, "/app/below"); err != nil {
		t.Error(err)
	}
	if err := (Limits{CpusetCPUs: "1-3"}).checkSets(h, "/app/below"); !errors.Is(err, ErrBeyondHost) || !strings.Contains(err.Error(), "2-3") {
		t.Errorf("got %v", err)
	}
}

func TestParseSet(t *testing.T) {
	for text, want := range map[string][]int{"": nil, "0": {0}, "0-2,5": {0, 1, 2, 5}, "5,1-2,1": {1, 2, 5}} {
		got, err := ParseSet(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		again, err := ParseSet(formatSet(got))
		if err != nil || !slices.Equal(again, got) {
			t.Errorf("%q: %s", text, formatSet(got))
		}
	}
	for _, text := range []string{"-", "1-", "-1", "2-1", "a", "0,", "99999999", "1 2", "0-70000"} {
		if _, err := ParseSet(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// A partition's limits are its disk's.
func TestResolve(t *testing.T) {
	sys := t.TempDir()
	disk := filepath.Join(sys, "devices/vda")
	os.MkdirAll(filepath.Join(disk, "vda1"), 0o700)
	os.MkdirAll(filepath.Join(sys, "dev/block"), 0o700)
	os.WriteFile(filepath.Join(disk, "dev"), []byte("254:0\n"), 0o600)
	os.WriteFile(filepath.Join(disk, "vda1/partition"), []byte("1\n"), 0o600)
	os.Symlink(filepath.Join(disk, "vda1"), filepath.Join(sys, "dev/block/254:1"))
	os.Symlink(disk, filepath.Join(sys, "dev/block/254:0"))
	l, err := Limits{IO: IO{Reads: []Rate{{"254:1", 5}}, Writes: []Rate{{"254:0", 6}}}}.resolve(sys)
	if err != nil || l.IO.Reads[0].Device != "254:0" || l.IO.Writes[0].Device != "254:0" {
		t.Errorf("got %+v, %v", l, err)
	}
	for _, l := range []Limits{
		{IO: IO{Reads: []Rate{{"254:1", 5}, {"254:0", 5}}}}, {IO: IO{Reads: []Rate{{"/dev/null", 5}}}}, {IO: IO{Reads: []Rate{{"/dev/whnone", 5}}}},
	} {
		if got, err := l.resolve(sys); err == nil {
			t.Errorf("%+v: got %+v", l, got)
		}
	}
}

func TestEqual(t *testing.T) {
	a := everything
	b := everything
	b.IO.ReadBytes = slices.Clone(b.IO.ReadBytes)
	if !a.Equal(b) {
		t.Error("equal limits differ")
	}
	b.IO.ReadBytes[0].Rate++
	if a.Equal(b) {
		t.Error("other rates are equal")
	}
}
