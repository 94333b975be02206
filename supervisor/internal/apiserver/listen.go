package apiserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Listen makes the API's socket at path: mode 0660, owned by us and the group.
// An empty group is "wherry" if the host has it, else our own. A socket that
// nobody answers at is replaced; one that answers is an error.
func Listen(path, group string) (net.Listener, error) {
	gid, err := socketGroup(group)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("listen %s: something that is no socket stands there", path) // a mistyped path must not cost a file
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen %s: another process answers there", path)
	} else if errors.Is(err, unix.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen: stale socket: %w", err)
		}
	}
	// The socket is made under a name that nobody uses and moved when its mode
	// is right: bind gives it the process's umask, which is not ours to change.
	tmp := path + "." + strconv.Itoa(os.Getpid())
	_ = os.Remove(tmp)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	err = os.Chmod(tmp, 0o660)
	if err == nil && gid >= 0 {
		err = os.Chown(tmp, -1, gid)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = ln.Close()
		_ = os.Remove(tmp)
		return nil, fmt.Errorf("listen %s: %w", path, err)
	}
	return &socket{UnixListener: ln, path: path}, nil
}

// socketGroup finds the group's id; -1 means ours.
func socketGroup(name string) (int, error) {
	optional := name == ""
	if optional {
		name = "wherry"
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		if optional {
			return -1, nil
		}
		return 0, fmt.Errorf("group %s: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

// socket removes its file when it is closed.
type socket struct {
	*net.UnixListener
	path string
}

func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if err == nil { // a second Close must not remove a successor's socket
		_ = os.Remove(s.path)
	}
	return err
}
