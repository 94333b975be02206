package apiserver

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer is the process at the other end of a connection, as the kernel knows it
// from the moment it connected.
type peer struct {
	known bool
	uid   uint32
	pid   int32 // 0: in a pid namespace that we do not see, as when we run in a container
}

// admin reports whether the peer may change things: whoever may is root in
// effect, because a unit may mount any path of the host.
func (p peer) admin() bool { return p.known && (p.uid == 0 || p.uid == ownUID()) }

// String is the peer in audit records: "alice (uid 1000, pid 812)".
func (p peer) String() string {
	if !p.known {
		return "unknown caller"
	}
	name := "user"
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.uid), 10)); err == nil {
		name = u.Username
	}
	if p.pid == 0 {
		return fmt.Sprintf("%s (uid %d)", name, p.uid)
	}
	return fmt.Sprintf("%s (uid %d, pid %d)", name, p.uid, p.pid)
}

type peerKey struct{}

// withPeer asks the kernel who connected. A connection that has no credentials
// (not a Unix socket) may only read.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerOfConn(c))
}

func peerOfConn(c net.Conn) (p peer) {
	if rc, ok := c.(*readerConn); ok {
		return rc.peer
	}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				// Only Unix sockets know: TCP answers with zeroes and uid -1.
				if family, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || family != unix.AF_UNIX {
					return
				}
				// A user whom our user namespace does not map is the overflow user, never root.
				cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
				if err == nil {
					p = peer{known: true, uid: cred.Uid, pid: cred.Pid}
				}
			})
		}
	}
	return p
}

func peerOf(ctx context.Context) peer {
	p, _ := ctx.Value(peerKey{}).(peer)
	return p
}
