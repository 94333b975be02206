package apiserver

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeer: only the kernel's word about a Unix socket makes somebody an admin.
func TestPeer(t *testing.T) {
	for _, c := range []struct {
		network, address string
		known            bool
	}{
		{"unix", filepath.Join(t.TempDir(), "s"), true},
		{"tcp", "127.0.0.1:0", false},
	} {
		l, err := net.Listen(c.network, c.address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		caller, err := net.Dial(c.network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer caller.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if p := peerOfConn(conn); p.known != c.known || p.admin() != c.known {
			t.Errorf("%s: %+v", c.network, p)
		}
	}
	// From outside the container that the daemon runs in.
	if p := (peer{known: true}); !p.admin() || strings.Contains(p.String(), "pid") {
		t.Errorf("root of another pid namespace: %v, admin %v", p, p.admin())
	}
}
