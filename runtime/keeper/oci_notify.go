package keeper

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// notifyRelay passes a container's READY=1 on to the service manager that has started
// us with NOTIFY_SOCKET (sd_notify(3)), and names the container's process as the
// service's. A nil relay does nothing.
type notifyRelay struct {
	host string
	dir  string
	conn *net.UnixConn
}

// notifyInside is where the container finds its socket.
const notifyInside = "/run/notify"

func newNotifyRelay(o *oci, id string) *notifyRelay {
	host := os.Getenv("NOTIFY_SOCKET")
	if host == "" {
		return nil
	}
	return &notifyRelay{host: host, dir: filepath.Join(o.root, id, "notify")}
}

func (n *notifyRelay) addTo(spec *specs.Spec) {
	if n == nil {
		return
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: notifyInside, Source: n.dir,
		Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	spec.Process.Env = append(spec.Process.Env, "NOTIFY_SOCKET="+notifyInside+"/notify.sock")
}

// prepare makes what is mounted; the socket only if the program starts at once: otherwise start makes it.
func (n *notifyRelay) prepare(now bool) error {
	if n == nil {
		return nil
	}
	if err := os.Mkdir(n.dir, 0o755); err != nil {
		return err
	}
	if !now {
		return nil
	}
	return n.bind()
}

func (n *notifyRelay) bind() error {
	if n == nil {
		return nil
	}
	path := filepath.Join(n.dir, "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	n.conn = conn
	return os.Chmod(path, 0o777)
}

// relay waits until the container says that it is ready, or process watched
// ends, and passes it on with the process that the service manager should watch.
func (n *notifyRelay) relay(watched, main int) error {
	if n == nil || n.conn == nil {
		return nil
	}
	b := make([]byte, 4096)
	for {
		n.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		got, err := n.conn.Read(b)
		if err == nil {
			for line := range bytes.SplitSeq(b[:got], []byte{'\n'}) {
				if bytes.HasPrefix(line, []byte("READY=")) {
					return n.tell(line, main)
				}
			}
		} else if !os.IsTimeout(err) {
			return err
		}
		if unix.Kill(watched, 0) == unix.ESRCH {
			return nil
		}
	}
}

func (n *notifyRelay) tell(ready []byte, pid int) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.host, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(append(ready, '\n')); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "MAINPID=%s\n", strconv.Itoa(pid)); err != nil {
		return err
	}
	return barrier(conn)
}

// barrier waits until the manager has taken our messages, while we still exist for it to
// look up (sd_notify_barrier(3)): it closes the descriptor that we send.
func barrier(conn *net.UnixConn) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	raw, err := conn.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.Sendmsg(int(fd), []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), nil, 0)
		})
		if err == nil {
			err = cerr
		}
	}
	w.Close()
	if err != nil {
		return err
	}
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	r.Read(make([]byte, 1)) // its end, or a manager without barriers
	return nil
}
