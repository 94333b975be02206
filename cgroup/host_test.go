package cgroup

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func TestLegacyHost(t *testing.T) {
	h, err := legacyHost([]*mountinfo.Info{
		{FSType: "cgroup", Root: "/", Mountpoint: "/cg/cpu,cpuacct", VFSOptions: "rw,cpu,cpuacct"},
		{FSType: "cgroup", Root: "/docker/x", Mountpoint: "/var/lib/x/memory", VFSOptions: "rw,memory"},
		{FSType: "cgroup", Root: "/", Mountpoint: "/cg/memory", VFSOptions: "rw,memory"},
		{FSType: "cgroup", Root: "/", Mountpoint: "/elsewhere/memory", VFSOptions: "rw,memory"},
		{FSType: "cgroup", Root: "/../x", Mountpoint: "/var/lib/x/pids", VFSOptions: "rw,pids"},
		{FSType: "cgroup", Root: "/../..", Mountpoint: "/cg/pids", VFSOptions: "rw,pids"}, // from within a namespace
		{FSType: "cgroup", Root: "/", Mountpoint: "/cg/systemd", VFSOptions: "rw,xattr,name=systemd"},
		{FSType: "cgroup2", Root: "/", Mountpoint: "/cg/unified", VFSOptions: "rw"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/cg/pids", "/cg/memory", "/cg/cpu,cpuacct", "/cg/unified", "/cg/systemd"}
	if got := h.roots(); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got := h.file("cpuacct", "/app", "cpuacct.usage"); got != "/cg/cpu,cpuacct/app/cpuacct.usage" {
		t.Errorf("got %s", got)
	}
	if _, err := legacyHost(nil); err == nil {
		t.Error("a host without controllers is no error")
	}
}

// The root group is the whole host: nothing may be killed or removed there.
func TestPathsThatAreRefused(t *testing.T) {
	for _, p := range []string{"", "/", "app", "/app/", "/app/..", "/../app", "//app", "/./app"} {
		g := Group{Path: p}
		if g.Kill(context.Background()) == nil || g.Remove(context.Background()) == nil || g.Join(1) == nil || (Parent{Path: p}).Prepare() == nil {
			t.Errorf("%q was accepted", p)
		}
		if _, err := g.Stats(); err == nil {
			t.Errorf("%q was read", p)
		}
	}
}

func TestParentMustBeDelegated(t *testing.T) {
	for _, p := range []Parent{
		{Path: "/whC-none/a", Delegated: "/whC-none/b"},
		{Path: "/whC-none", Delegated: "/whC-no"},
		{Path: "/whC-none", Delegated: "/"},
	} {
		if err := p.Prepare(); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

func TestProcsOfGroupsBelow(t *testing.T) {
	h := &host{mode: Unified, unified: t.TempDir()}
	for dir, procs := range map[string]string{"app": "0\n7\n", "app/a": "3\n12\n", "app/a/b": "5\n7\n"} {
		os.MkdirAll(filepath.Join(h.unified, dir), 0o700)
		os.WriteFile(filepath.Join(h.unified, dir, "cgroup.procs"), []byte(procs), 0o600)
	}
	got, err := h.procs("/app")
	if want := []int{3, 5, 7, 12}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := h.procs("/none"); !gone(err) {
		t.Errorf("got %v", err)
	}
}

func TestRemoveIsRecursiveEverywhere(t *testing.T) {
	h := &host{mode: Legacy, v1: map[string]string{"memory": t.TempDir(), "pids": t.TempDir()}}
	for _, root := range h.v1 {
		os.MkdirAll(filepath.Join(root, "app", "a", "b"), 0o700)
		os.MkdirAll(filepath.Join(root, "other"), 0o700)
	}
	for range 2 { // what is gone is no error
		if err := h.remove("/app"); err != nil {
			t.Fatal(err)
		}
	}
	for _, root := range h.v1 {
		if e, _ := os.ReadDir(root); len(e) != 1 {
			t.Errorf("left: %v", e)
		}
	}
}

func TestParseInotify(t *testing.T) {
	var b []byte
	event := func(wd int32, mask uint32, name string) {
		b = binary.NativeEndian.AppendUint32(b, uint32(wd))
		b = binary.NativeEndian.AppendUint32(b, mask)
		b = binary.NativeEndian.AppendUint32(b, 0)
		b = binary.NativeEndian.AppendUint32(b, uint32(len(name)))
		b = append(b, name...)
	}
	event(1, unix.IN_MODIFY, "")
	event(2, unix.IN_MODIFY, "some\x00\x00\x00\x00")
	event(3, unix.IN_IGNORED, "")
	hit, gone := parseInotify(b)
	if !slices.Equal(hit, []int32{1, 2}) || !slices.Equal(gone, []int32{3}) {
		t.Errorf("got %v, %v", hit, gone)
	}
	parseInotify(b[:len(b)-3]) // cut off: no panic
}
