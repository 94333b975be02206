package keeper

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxHeirName is what systemd takes for a name (FDNAME_MAX).
const maxHeirName = 255

// storeHeir is systemd's store of descriptors, for a keeper that runs as a
// service with FileDescriptorStoreMax. What is in it comes back when the
// service is started again.
type storeHeir struct {
	socket int
	to     unix.Sockaddr
	logger *slog.Logger
}

// newStoreHeir returns nil if no service manager takes notes from us.
func newStoreHeir(address string, logger *slog.Logger) *storeHeir {
	if address == "" || address[0] != '/' && address[0] != '@' {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		logger.Warn("no store for descriptors", "err", err)
		return nil
	}
	if address[0] == '@' {
		address = "\x00" + address[1:]
	}
	return &storeHeir{socket: fd, to: &unix.SockaddrUnix{Name: address}, logger: logger}
}

// kept gives fd to the store. FDPOLL=0, because systemd would drop a pidfd as
// soon as its process has ended (v252).
func (s *storeHeir) kept(name string, fd int) {
	defer unix.Close(fd)
	if len(name) > maxHeirName {
		return
	}
	s.notify("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(fd))
}

func (s *storeHeir) dropped(name string) { s.notify("FDSTOREREMOVE=1\nFDNAME="+name, nil) }

// notify does not wait: a manager that does not read must not stop a start. Not net.UnixConn,
// whose WriteMsgUnix refuses a connected datagram socket with an address.
func (s *storeHeir) notify(text string, rights []byte) {
	if err := unix.Sendmsg(s.socket, []byte(text), rights, s.to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
		s.logger.Warn("the service manager does not take a note", "note", strings.ReplaceAll(text, "\n", " "), "err", err)
	}
}

// Where a keeper finds its heirlooms when it begins.
const (
	envHeirlooms = "WHERRY_KEEPER_HEIRLOOMS" // the number of a file of lines "fd name", over an upgrade in place
	envNotify    = "NOTIFY_SOCKET"
	envManaged   = "INVOCATION_ID" // systemd gives one to every service; a keeper that a runtime has started gets none
)

// inheritHeirlooms takes over what this process was given at its start: by the binary
// that it was before, or from systemd's store. The environment is cleared of
// it: containers' processes do not inherit it, but the next binary would.
func (h *heirlooms) inherit(logger *slog.Logger) {
	defer func() {
		for _, name := range []string{envHeirlooms, "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID"} {
			os.Unsetenv(name)
		}
	}()
	if n, err := strconv.Atoi(os.Getenv(envHeirlooms)); err == nil {
		h.inheritList(n, logger)
	}
	for name, fd := range storedHeirlooms(os.Getenv, os.Getpid()) {
		h.inheritOne(name, fd)
	}
}

// inheritOne takes fd over if it is open.
func (h *heirlooms) inheritOne(name string, fd int) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return
	}
	unix.CloseOnExec(fd)
	if kind, owner := heirParts(name); kind == "" || owner == "" {
		unix.Close(fd)
		return
	}
	h.giveBack(name, fd, nil)
}

// storedHeirlooms are those that came by systemd's protocol (sd_listen_fds(3)).
func storedHeirlooms(getenv func(string) string, pid int) map[string]int {
	const first = 3
	if p, err := strconv.Atoi(getenv("LISTEN_PID")); err != nil || p != pid {
		return nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	if err != nil || n <= 0 || n != len(names) {
		return nil
	}
	found := map[string]int{}
	for i, name := range names {
		if strings.Contains(name, "/") { // sockets of a socket unit have no such names
			found[name] = first + i
		}
	}
	return found
}

// writeList writes the list that the next binary reads. The descriptors in it, and its own,
// survive an exec until restore is called.
func (h *heirlooms) writeList() (list *os.File, restore func(), err error) {
	fd, err := unix.MemfdCreate("heirlooms", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("heirlooms: %w", err)
	}
	list = os.NewFile(uintptr(fd), "heirlooms")
	h.mu.Lock()
	defer h.mu.Unlock()
	passed := []int{fd}
	w := bufio.NewWriter(list)
	for name, fd := range h.held {
		passed = append(passed, fd)
		fmt.Fprintln(w, fd, name)
	}
	if err := w.Flush(); err != nil {
		list.Close()
		return nil, nil, fmt.Errorf("heirlooms: %w", err)
	}
	for _, fd := range passed {
		unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
	return list, func() {
		for _, fd := range passed {
			unix.CloseOnExec(fd)
		}
		list.Close()
	}, nil
}

func (h *heirlooms) inheritList(fd int, logger *slog.Logger) {
	// Whoever else has put a number there must not make us read something else.
	if target, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(fd))); err != nil || !strings.HasPrefix(target, "/memfd:heirlooms") {
		return
	}
	list := os.NewFile(uintptr(fd), "heirlooms")
	defer list.Close()
	if _, err := list.Seek(0, io.SeekStart); err != nil {
		logger.Error("cannot read what was left to us", "err", err)
		return
	}
	for s := bufio.NewScanner(list); s.Scan(); {
		number, name, _ := strings.Cut(s.Text(), " ")
		if n, err := strconv.Atoi(number); err == nil {
			h.inheritOne(name, n)
		}
	}
}

// isRunHeirloom tells the kinds whose owner is a run.
func isRunHeirloom(kind string) bool { return strings.HasPrefix(kind, "ns-") }

// prune drops what belongs to no container that we know, after all were adopted.
func (k *Keeper) pruneHeirlooms() {
	for _, name := range k.heirlooms.names() {
		if !k.wantsHeirloom(name) {
			k.heirlooms.dropName(name)
		}
	}
}
