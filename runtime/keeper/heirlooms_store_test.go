package keeper

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// noteTaker is the socket of a service manager that takes notes.
func noteTaker(t *testing.T, address string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if address[0] == '@' {
		address = "\x00" + address[1:]
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// note is what has come to the manager, with the number of descriptors, which are closed.
func note(t *testing.T, fd int) (string, int) {
	t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range msgs {
		fds, _ := unix.ParseUnixRights(&m)
		for _, f := range fds {
			unix.Close(f)
			count++
		}
	}
	return string(buf[:n]), count
}

func TestStore(t *testing.T) {
	for _, address := range []string{filepath.Join(t.TempDir(), "notify"), "@wherry-keeper-test-" + strconv.Itoa(os.Getpid())} {
		fd := noteTaker(t, address)
		s := newStoreHeir(address, slog.New(slog.DiscardHandler))
		if s == nil {
			t.Fatalf("%s: no store", address)
		}
		h := newHeirlooms()
		h.appoint(s)
		_, w := testPipe(t)
		if err := h.keep(heirPidfd, "web.1-7f3k.app", w); err != nil {
			t.Fatal(err)
		}
		if text, n := note(t, fd); text != "FDSTORE=1\nFDPOLL=0\nFDNAME=pidfd/web.1-7f3k.app" || n != 1 {
			t.Errorf("kept: %q with %d descriptors", text, n)
		}
		h.drop(heirPidfd, "web.1-7f3k.app")
		if text, n := note(t, fd); text != "FDSTOREREMOVE=1\nFDNAME=pidfd/web.1-7f3k.app" || n != 0 {
			t.Errorf("dropped: %q with %d descriptors", text, n)
		}
		if strings.ContainsAny(heirName(heirPidfd, "web.1-7f3k.app"), ":\n") {
			t.Error("systemd does not take such a name")
		}
		unix.Close(s.socket)
	}
	for _, none := range []string{"", "relative", "vsock:2:3"} {
		if newStoreHeir(none, slog.New(slog.DiscardHandler)) != nil {
			t.Errorf("%q gives a store", none)
		}
	}
}

func TestStoredHeirlooms(t *testing.T) {
	env := map[string]string{"LISTEN_PID": "42", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "pidfd/a.app:wherry.socket:tty/a.app"}
	getenv := func(k string) string { return env[k] }
	want := map[string]int{"pidfd/a.app": 3, "tty/a.app": 5}
	if got := storedHeirlooms(getenv, 42); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := storedHeirlooms(getenv, 43); got != nil {
		t.Errorf("of another process: %v", got)
	}
	env["LISTEN_FDS"] = "4"
	if got := storedHeirlooms(getenv, 42); got != nil {
		t.Errorf("names do not fit: %v", got)
	}
}

// TestListOverExec: what one image has written the next one reads.
func TestListOverExec(t *testing.T) {
	h := newHeirlooms()
	r, w := testPipe(t)
	if err := h.keep(heirTTY, "a.app", w); err != nil {
		t.Fatal(err)
	}
	list, restore, err := h.writeList()
	if err != nil {
		t.Fatal(err)
	}
	flags := func(fd int) int {
		n, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return n
	}
	if flags(int(list.Fd())) != 0 || flags(h.held["tty/a.app"]) != 0 {
		t.Error("an exec would close them")
	}
	next := newHeirlooms()
	dup, err := unix.Dup(int(list.Fd())) // the next image has the descriptor, this one too
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(envHeirlooms, strconv.Itoa(dup))
	fd := h.held["tty/a.app"]
	next.inherit(slog.New(slog.DiscardHandler))
	if os.Getenv(envHeirlooms) != "" {
		t.Error("the one after it would read it again")
	}
	f := next.take(heirTTY, "a.app")
	if f == nil || flags(fd) == 0 {
		t.Fatalf("took %v, flags %d", f, flags(fd))
	}
	f.WriteString("x")
	f.Close()
	b := make([]byte, 1)
	if _, err := r.Read(b); err != nil {
		t.Error(err)
	}
	restore()
	// A number that means something else is left alone.
	t.Setenv(envHeirlooms, strconv.Itoa(int(r.Fd())))
	newHeirlooms().inherit(slog.New(slog.DiscardHandler))
	if _, err := r.Stat(); err != nil {
		t.Errorf("it has closed what is not its: %v", err)
	}
}

// TestStoreThatDoesNotRead: notes wait for a manager that is busy, in their order, and none is lost.
func TestStoreThatDoesNotRead(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	fd := noteTaker(t, address)
	s := newStoreHeir(address, slog.New(slog.DiscardHandler))
	h := newHeirlooms()
	h.appoint(s)
	_, w := testPipe(t)
	const many = 2000 // more than any queue of datagrams has room for
	for i := range many {
		if err := h.keep(heirPidfd, "web."+strconv.Itoa(i), w); err != nil {
			t.Fatal(err)
		}
		h.drop(heirPidfd, "web."+strconv.Itoa(i))
	}
	s.mu.Lock()
	waiting := len(s.waiting)
	s.mu.Unlock()
	if waiting == 0 {
		t.Error("no note waits")
	}
	pollable := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for i := range many {
		for _, want := range []string{"FDSTORE=1\nFDPOLL=0\nFDNAME=pidfd/web.", "FDSTOREREMOVE=1\nFDNAME=pidfd/web."} {
			_, err := unix.Poll(pollable, -1)
			for errors.Is(err, unix.EINTR) { // a signal of the Go runtime's own
				_, err = unix.Poll(pollable, -1)
			}
			if err != nil {
				t.Fatal(err)
			}
			if text, _ := note(t, fd); text != want+strconv.Itoa(i) {
				t.Fatalf("note %d: %q, want %q", i, text, want)
			}
		}
	}
	s.flush(time.Minute)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) != 0 || s.size != 0 {
		t.Errorf("%d notes wait, names of %d bytes", len(s.waiting), s.size)
	}
}

// TestStoreIsBounded: a program cannot be started with more names than fit into one variable of its environment.
func TestStoreIsBounded(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	fd := noteTaker(t, address)
	s := newStoreHeir(address, slog.New(slog.DiscardHandler))
	_, w := testPipe(t)
	names := map[string]bool{}
	for i := range 1000 {
		name := heirName(heirTTY, strings.Repeat("x", 200)+strconv.Itoa(i))
		dup, err := dupOf(w)
		if err != nil {
			t.Fatal(err)
		}
		s.kept(name, dup)
		if text, err := nextNote(fd); err == nil {
			names[strings.TrimPrefix(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=")] = true
		}
	}
	size := 0
	for name := range names {
		size += len(name) + 1
	}
	if size > maxStoredNames || size < maxStoredNames-300 {
		t.Errorf("%d names of %d bytes in the store", len(names), size)
	}
	var none *storeHeir
	none.notify("READY=1")
	none.flush(time.Minute)
	none.progress()
}

// nextNote is note if there is one.
func nextNote(fd int) (string, error) {
	buf, oob := make([]byte, 4096), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return "", err
	}
	msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range msgs {
		fds, _ := unix.ParseUnixRights(&m)
		for _, f := range fds {
			unix.Close(f)
		}
	}
	return string(buf[:n]), nil
}
