package unit

import (
	"reflect"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/cgroup"
)

func TestLimitKeys(t *testing.T) {
	u, warns, err := Parse("web.yaml", []byte(`
image: nginx
oom: process
cpu_shares: 512
cpuset: "0-1"
cpuset_mems: "0"
resources:
  reservations: {cpus: 0.25, memory: 64MiB}
  limits:
    cpus: 1.5
    memory: 256MiB
    memory_high: 200MiB
    swap: 32MiB
    pids: 50
    hugepages: {2MiB: 64MiB, 1GiB: 0}
blkio_config:
  weight: 300
  device_read_bps: [{path: /dev/sda, rate: 10MiB}]
  device_write_bps: [{path: /dev/sda, rate: 1k}]
  device_read_iops: [{path: /dev/sda, rate: 100}]
  device_write_iops: [{path: /dev/sda, rate: 200}, {path: /dev/sdb, rate: 5}]
`), Options{})
	if err != nil || len(warns) > 0 {
		t.Fatal(err, warns)
	}
	want := cgroup.Limits{
		Memory: 256 << 20, MemoryHigh: 200 << 20, Swap: 32 << 20, MemoryReservation: 64 << 20, CPUs: 1.5, CPUReservation: 0.25,
		CPUShares: 512, CpusetCPUs: "0-1", CpusetMems: "0", Pids: 50, Hugepages: map[string]int64{"2MB": 64 << 20, "1GB": 0},
		IO: cgroup.IO{Weight: 300, ReadBytes: []cgroup.Rate{{Device: "/dev/sda", Rate: 10 << 20}}, WriteBytes: []cgroup.Rate{{Device: "/dev/sda", Rate: 1 << 10}},
			Reads: []cgroup.Rate{{Device: "/dev/sda", Rate: 100}}, Writes: []cgroup.Rate{{Device: "/dev/sda", Rate: 200}, {Device: "/dev/sdb", Rate: 5}}},
	}
	c := u.Containers[0]
	if !c.Limits.Equal(want) || c.OOM != "process" {
		t.Errorf("got %+v", c.Limits)
	}
	group, _, err := Parse("web.yaml", []byte("image: nginx\noom: group\nresources: {limits: {swap: -1, memory: 64M}}"), Options{})
	if err != nil || group.Containers[0].OOM != "" || group.Containers[0].Limits.Swap != -1 {
		t.Errorf("got %+v, %v", group.Containers[0], err)
	}
}

func TestLimitKeysThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		"oom: all": `"all" is unknown`,
		"resources: {limits: {memory: 64M}, reservations: {memory: 128M}}":    "more than the memory limit",
		"resources: {reservations: {memory: 128M}, limits: {memory: 64M}}":    "more than the memory limit",
		"resources: {limits: {memory: 64M, memory_high: 128M}}":               "it would do nothing",
		"resources: {limits: {memory_high: 64M}, reservations: {memory: 1G}}": "more than memory_high",
		"resources: {limits: {cpus: 1}, reservations: {cpus: 2}}":             "more than the limit",
		"resources: {limits: {swap: 1G}}":                                     "without a limit of memory",
		"resources: {limits: {hugepages: {2MiB: 3MiB}}}":                      "not a number of such pages",
		"resources: {limits: {hugepages: {3B: 3MiB}}}":                        "hugepages",
		"resources: {limits: {hugepages: 5M}}":                                "wants a map",
		"cpuset: 0-":                                                          "not a list of numbers",
		"cpuset: 3-1":                                                         "not a list of numbers",
		"{cpuset: 0-1, resources: {limits: {cpus: 3}}}":                       "more than the cpuset",
		"cpu_shares: 1":             "out of range",
		"blkio_config: {weight: 5}": "out of range",
		"blkio_config: {device_read_bps: [{path: sda, rate: 1M}]}":       "not the path of a device",
		"blkio_config: {device_read_bps: [{path: /dev/sda}]}":            "wants path and rate",
		"blkio_config: {device_read_bps: [{path: /dev/sda, rate: 100}]}": "has no unit",
		"blkio_config: {device_read_iops: [{path: /dev/sda, rate: 1M}]}": "not a number of requests",
		"blkio_config: {device_read_bps: {path: /dev/sda, rate: 1M}}":    "wants a list",
		"memswap_limit: 1G": "swap: ...",
	} {
		if text[0] == '{' {
			text = "{image: nginx, " + text[1:]
		} else {
			text = "image: nginx\n" + text
		}
		_, _, err := Parse("web.yaml", []byte(text), Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestLimitFlags(t *testing.T) {
	was := cgroup.Limits{Memory: 64 << 20, Swap: 16 << 20, CPUs: 1, Pids: 5, IO: cgroup.IO{Reads: []cgroup.Rate{{Device: "/dev/a", Rate: 1}, {Device: "/dev/b", Rate: 2}}}}
	for _, c := range []struct {
		flags LimitFlags
		want  func(*cgroup.Limits)
	}{
		{LimitFlags{}, func(*cgroup.Limits) {}},
		{LimitFlags{Memory: "128m"}, func(l *cgroup.Limits) { l.Memory = 128 << 20 }},
		{LimitFlags{Memory: "0"}, func(l *cgroup.Limits) { l.Memory, l.Swap = 0, 0 }},
		{LimitFlags{Memory: "128m", MemorySwap: "128m"}, func(l *cgroup.Limits) { l.Memory, l.Swap = 128<<20, 0 }},
		{LimitFlags{MemorySwap: "-1"}, func(l *cgroup.Limits) { l.Swap = -1 }},
		{LimitFlags{MemorySwap: "96m", MemoryReservation: "8388608", MemoryHigh: "32m"}, func(l *cgroup.Limits) {
			l.Swap, l.MemoryReservation, l.MemoryHigh = 32<<20, 8<<20, 32<<20
		}},
		{LimitFlags{CPUs: "0", Pids: "-1", CPUShares: "7", CpusetCPUs: "0,1", CPUReservation: "0.5"}, func(l *cgroup.Limits) {
			l.CPUs, l.Pids, l.CPUShares, l.CpusetCPUs, l.CPUReservation = 0, 0, 7, "0,1", 0.5
		}},
		{LimitFlags{IOWeight: "20", ReadIOps: []string{"/dev/a:0", "/dev/b:9"}, WriteBps: []string{"/dev/a:1m"}}, func(l *cgroup.Limits) {
			l.IO = cgroup.IO{Weight: 20, Reads: []cgroup.Rate{{Device: "/dev/b", Rate: 9}}, WriteBytes: []cgroup.Rate{{Device: "/dev/a", Rate: 1 << 20}}}
		}},
	} {
		want := was
		c.want(&want)
		change, err := c.flags.Change()
		if err != nil {
			t.Errorf("%+v: %v", c.flags, err)
			continue
		}
		if change.Empty() != reflect.DeepEqual(c.flags, LimitFlags{}) {
			t.Errorf("%+v: empty %v", c.flags, change.Empty())
		}
		if got, err := change.Apply(was); err != nil || !got.Equal(want) {
			t.Errorf("%+v: got %+v, %v", c.flags, got, err)
		}
	}
	for flag, f := range map[string]LimitFlags{
		"--memory:": {Memory: "1"}, "--memory-swap:": {MemorySwap: "x"}, "--cpus:": {CPUs: "-1"}, "--cpu-shares:": {CPUShares: "1"},
		"--cpuset-cpus:": {CpusetCPUs: "a"}, "--pids-limit:": {Pids: "-2"}, "--blkio-weight:": {IOWeight: "9"}, "--device-read-bps:": {ReadBps: []string{"/dev/a"}},
		"--device-write-iops:": {WriteIOps: []string{"/dev/a:1m"}},
	} {
		if _, err := f.Change(); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%s: got %v", flag, err)
		}
	}
	for _, f := range []LimitFlags{{MemorySwap: "32m"}, {Memory: "0", MemorySwap: "32m"}, {MemoryReservation: "1g"}} {
		change, err := f.Change()
		if err == nil {
			_, err = change.Apply(was)
		}
		if err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
}
