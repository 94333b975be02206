package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

// fakeHost shows the files of testdata as a group "/app".
func fakeHost(t *testing.T, mode Mode) *host {
	t.Helper()
	root := t.TempDir()
	version, controllers := "v2", []string{""}
	h := &host{mode: mode, unified: root}
	if mode == Legacy {
		version, controllers = "v1", []string{"memory", "cpu", "cpuacct", "pids"}
		h = &host{mode: mode, v1: map[string]string{}}
		for _, c := range controllers {
			h.v1[c] = filepath.Join(root, c)
		}
	}
	for _, c := range controllers {
		if err := os.CopyFS(filepath.Join(root, c, "app"), os.DirFS(filepath.Join("testdata", version))); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// The files are those of a real group with memory.max 40 MB, pids.max 20 and a
// fifth of a core, in which the kernel has killed a process for memory.
func TestStatsV1(t *testing.T) {
	got, err := fakeHost(t, Legacy).stats("/app")
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		MemoryCurrent: 1220608, MemoryWorking: 1220608 - 90112, MemoryPeak: 39997440, MemoryLimit: 39997440,
		CPUUsec: 766354, ThrottledUsec: 3221346, Pids: 4, PidsLimit: 20, OOMKills: 1,
	}
	if got != want {
		t.Errorf("got %+v", got)
	}
}

func TestStatsV2(t *testing.T) {
	got, err := fakeHost(t, Unified).stats("/app")
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		MemoryCurrent: 21168128, MemoryWorking: 21168128 - 20049920, MemoryPeak: 39997440, MemoryLimit: 39997440,
		CPUUsec: 13512497, ThrottledUsec: 5957560, Pids: 2, PidsLimit: 20, OOMKills: 1,
	}
	if got != want {
		t.Errorf("got %+v", got)
	}
}

func TestParseValue(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		bad  bool
	}{
		{"0\n", 0, false}, {"4096\n", 4096, false}, {"max\n", 0, false},
		{"9223372036854771712\n", 0, false}, // v1 without a limit, pages of 4 KiB
		{"9223372036854710272\n", 0, false}, // pages of 64 KiB
		{"", 0, true}, {"-", 0, true}, {"12 13", 0, true},
	} {
		got, err := parseValue(c.in)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%q: got %d, %v", c.in, got, err)
		}
	}
}

func TestParseKey(t *testing.T) {
	const text = "usage_usec 12\nuser_usec 13\nlast 7"
	for _, c := range []struct {
		text, key string
		want      uint64
		bad       bool
	}{
		{text, "usage_usec", 12, false}, {text, "user_usec", 13, false}, {text, "last", 7, false},
		{text, "usec", 0, false}, {"", "usec", 0, false}, {"usec\n", "usec", 0, false}, {"usec x\n", "usec", 0, true},
	} {
		got, err := parseKey(c.text, c.key)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%q %s: got %d, %v", c.text, c.key, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("oom_kill 3\n", "oom_kill")
	f.Fuzz(func(t *testing.T, text, key string) {
		parseValue(text)
		parseKey(text, key)
	})
}

// A host that lacks a controller, or a kernel that lacks a file, gives zero.
func TestStatsWithoutFiles(t *testing.T) {
	h := &host{mode: Unified, unified: t.TempDir()}
	if got, err := h.stats("/app"); err != nil || got != (Stats{}) {
		t.Errorf("v2: got %+v, %v", got, err)
	}
	h = &host{mode: Legacy, v1: map[string]string{"pids": t.TempDir()}}
	if got, err := h.stats("/app"); err != nil || got != (Stats{}) {
		t.Errorf("v1: got %+v, %v", got, err)
	}
}

func TestDamagedFile(t *testing.T) {
	h := fakeHost(t, Unified)
	if err := os.WriteFile(filepath.Join(h.unified, "app", "pids.current"), []byte("many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.stats("/app"); err == nil || err.Error() != `pids.current: not a number: "many"` {
		t.Errorf("got %v", err)
	}
}

func TestOOMKillsOfV1IncludeGroupsBelow(t *testing.T) {
	h := fakeHost(t, Legacy)
	below := filepath.Join(h.v1["memory"], "app", "below")
	if err := os.CopyFS(below, os.DirFS("testdata/v1")); err != nil {
		t.Fatal(err)
	}
	if n, err := h.oomKills("/app"); n != 2 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}
