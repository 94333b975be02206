package keeper

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxHeirName is what systemd takes for a name (FDNAME_MAX).
const maxHeirName = 255

// maxStoredNames bounds the names in the store. They come back in one variable of the environment, LISTEN_FDNAMES, and a program with
// one of 128 KiB (MAX_ARG_STRLEN) cannot be started at all.
const maxStoredNames = 120 << 10

// storeHeir is systemd's store of descriptors, for a keeper that runs as a
// service with FileDescriptorStoreMax. What is in it comes back when the
// service is started again. None is nil, which takes every note.
type storeHeir struct {
	socket int
	to     unix.Sockaddr
	logger *slog.Logger

	mu      sync.Mutex
	waiting []storeNote    // for a manager that does not read
	names   map[string]int // in the store, with their lengths
	size    int            // of all names
	full    bool           // said

	extended time.Time // of progress alone
}

// storeNote is a note with its descriptor, -1: none.
type storeNote struct {
	text string
	fd   int
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
	return &storeHeir{socket: fd, to: &unix.SockaddrUnix{Name: address}, logger: logger, names: map[string]int{}}
}

// kept gives fd to the store. FDPOLL=0, because systemd would drop a pidfd as
// soon as its process has ended (v252).
func (s *storeHeir) kept(name string, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(name) > maxHeirName || s.size+len(name)+1 > maxStoredNames {
		unix.Close(fd)
		if !s.full {
			s.full = true
			s.logger.Warn("the service manager's store is full: if keeper and daemon die together, what is not in it is lost", "name", name)
		}
		return
	}
	s.size += len(name) + 1 - s.names[name]
	s.names[name] = len(name) + 1
	s.send(storeNote{"FDSTORE=1\nFDPOLL=0\nFDNAME=" + name, fd})
}

func (s *storeHeir) dropped(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size -= s.names[name]
	delete(s.names, name)
	s.send(storeNote{"FDSTOREREMOVE=1\nFDNAME=" + name, -1})
}

// notify sends a note without a descriptor.
func (s *storeHeir) notify(text string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(storeNote{text, -1})
}

// extendEvery is how often a manager hears that a start gets on, and that it may take so much longer.
const (
	extendEvery = 5 * time.Second
	extendNote  = "EXTEND_TIMEOUT_USEC=90000000"
)

// progress tells the manager now and then that our start, which many containers make long, gets on.
func (s *storeHeir) progress() {
	if s == nil || time.Since(s.extended) < extendEvery {
		return
	}
	s.extended = time.Now()
	s.notify(extendNote)
}

// send does not wait: a manager that does not read, as while it executes itself again, must not stop a start. Nothing
// is left out either: what the store is not told to drop would stay in it. Not net.UnixConn, whose WriteMsgUnix refuses a
// connected datagram socket with an address.
func (s *storeHeir) send(n storeNote) {
	if len(s.waiting) == 0 {
		err := s.sendmsg(n, unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EAGAIN) {
			s.sent(n, err)
			return
		}
		go s.sendWaiting()
	}
	s.waiting = append(s.waiting, n)
}

func (s *storeHeir) sendmsg(n storeNote, flags int) error {
	var rights []byte
	if n.fd >= 0 {
		rights = unix.UnixRights(n.fd)
	}
	return unix.Sendmsg(s.socket, []byte(n.text), rights, s.to, flags|unix.MSG_NOSIGNAL)
}

func (s *storeHeir) sent(n storeNote, err error) {
	if n.fd >= 0 {
		unix.Close(n.fd)
	}
	if err != nil {
		s.logger.Warn("the service manager does not take a note", "note", strings.ReplaceAll(n.text, "\n", " "), "err", err)
	}
}

// sendWaiting sends what waits, in its order, and waits for the manager.
func (s *storeHeir) sendWaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > 0 {
		n := s.waiting[0]
		s.mu.Unlock()
		err := s.sendmsg(n, 0)
		s.mu.Lock()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		s.waiting = s.waiting[1:]
		s.sent(n, err)
	}
}

// flush waits until the manager has everything, with a limit.
func (s *storeHeir) flush(limit time.Duration) {
	if s == nil {
		return
	}
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		n := len(s.waiting)
		s.mu.Unlock()
		if n == 0 {
			return
		}
	}
	s.logger.Warn("the service manager does not take notes")
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
