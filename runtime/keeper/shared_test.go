package keeper

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
)

func TestIDs(t *testing.T) {
	m := &runtime.IDMap{HostID: 1 << 20, Size: 1 << 16}
	for inside, host := range map[int]int{0: 1 << 20, 1000: 1<<20 + 1000, 65535: 1<<20 + 65535} {
		if got := hostID(m, inside); got != host {
			t.Errorf("hostID(%d) = %d", inside, got)
		}
		if got := ownID(m, uint32(host)); got != uint32(inside) {
			t.Errorf("ownID(%d) = %d", host, got)
		}
	}
	if hostID(m, 65536) != 65536 || hostID(m, -1) != -1 || ownID(m, 65534) != 65534 || ownID(m, 1<<20+1<<16) != 1<<20+1<<16 {
		t.Error("ids that the map does not have are changed")
	}
	if hostID(nil, 5) != 5 || ownID(nil, 5) != 5 {
		t.Error("no map changes ids")
	}
}

func TestOwnACL(t *testing.T) {
	c := copier{ids: &runtime.IDMap{HostID: 1 << 20, Size: 1 << 16}}
	acl := make([]byte, 4+3*8)
	for i, e := range []struct {
		tag uint16
		id  uint32
	}{{0x01, 1<<32 - 1}, {aclUser, 1<<20 + 7}, {aclGroup, 9}} {
		binary.LittleEndian.PutUint16(acl[4+8*i:], e.tag)
		binary.LittleEndian.PutUint32(acl[8+8*i:], e.id)
	}
	c.ownACL(acl)
	for i, want := range []uint32{1<<32 - 1, 7, 9} {
		if got := binary.LittleEndian.Uint32(acl[8+8*i:]); got != want {
			t.Errorf("entry %d: %d, want %d", i, got, want)
		}
	}
	c.ownACL(acl[:3]) // nonsense of an image
}

func TestFitUserNS(t *testing.T) {
	m := &runtime.IDMap{HostID: 1 << 20, Size: 1 << 16}
	for in, want := range map[string]string{"0 2147483647": "0 65535", "0 5": "0 5", "x": "x", "1\t0": "1\t0"} {
		if got := fitPingGroups(in, m); got != want {
			t.Errorf("ping groups %q: %q, want %q", in, got, want)
		}
	}
	spec := &specs.Spec{Linux: &specs.Linux{}, Mounts: []specs.Mount{
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}}, {Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"},
	}}
	fitUserNS(spec, m)
	if s := spec.Mounts[0]; s.Type != "bind" || s.Source != "/sys" || !slices.Contains(s.Options, "ro") || spec.Mounts[1].Source != "/dev/mqueue" {
		t.Errorf("with the host's namespaces: %+v", spec.Mounts)
	}
	own := &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}},
		Mounts: []specs.Mount{{Destination: "/sys", Type: "sysfs"}}}
	fitUserNS(own, m)
	if own.Mounts[0].Type != "sysfs" {
		t.Errorf("with a network of its own: %+v", own.Mounts)
	}
}

func TestCheckIDMap(t *testing.T) {
	for _, m := range []*runtime.IDMap{{Size: 5}, {HostID: 5}, {HostID: 1<<32 - 5, Size: 100}} {
		if checkIDMap(m) == nil {
			t.Errorf("%+v is allowed", m)
		}
	}
	if err := checkIDMap(&runtime.IDMap{HostID: 1 << 20, Size: 1 << 16}); err != nil {
		t.Error(err)
	}
}

// TestNamespacesOfTheGone: who has gone before they were made, of which the request's context has not heard yet, will not let
// go of them, and has been let go of already by who comes next.
func TestNamespacesOfTheGone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	k := &Keeper{layout: testLayout(t), shared: map[string]*shared{}, making: map[string]chan struct{}{}}
	for _, gone := range []bool{true, false} {
		files, err := k.makeNamespaces(t.Context(), func() bool { return gone }, &runtime.Namespaces{Run: "web.1-aaaa", Net: true})
		for _, f := range files {
			f.Close()
		}
		if errors.Is(err, context.Canceled) != gone || (len(k.shared) == 0) != gone || len(k.making) > 0 {
			t.Errorf("gone %v: %v, %d held", gone, err, len(k.shared))
		}
	}
	if err := k.releaseNamespaces(t.Context(), "web.1-aaaa"); err != nil {
		t.Error(err)
	}
}
