package network

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// reservations hold a socket for everything that is published, so that no
// other process of the host can take a port whose packets never reach it.
//
// The sockets are bound and nothing more. One that listened would answer, or
// swallow, what reaches the host while a port is not in the table yet; a bound
// one refuses, and the client tries again. They live as long as the process: the
// next daemon takes them in Repair, and meanwhile packets go on to the containers.
type reservations map[socket]int

// take reserves a socket; one that is held already is no error.
func (r reservations) take(h *host, s socket) error {
	if _, ok := r[s]; ok {
		return nil
	}
	return h.do(func() error {
		fd, err := bind(s, false)
		if errors.Is(err, unix.EADDRINUSE) && s.proto == "tcp" {
			// Perhaps it is only connections of an earlier server in TIME_WAIT,
			// which would block the port for a minute. SO_REUSEADDR tells: it
			// looks past those, but not past a listener. The price is that a
			// server with the same option could still bind beside us.
			fd, err = bind(s, true)
		}
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			return fmt.Errorf("%s: %w%s", s, ErrPortTaken, holderText(s))
		case errors.Is(err, unix.EADDRNOTAVAIL):
			return fmt.Errorf("%s: this host does not have the address %s", s, s.ip)
		case err != nil:
			return fmt.Errorf("%s: %w", s, err)
		}
		r[s] = fd
		return nil
	})
}

// keep lets go of all but the given ones.
func (r reservations) keep(wanted []socket) {
	for s, fd := range r {
		if !slices.Contains(wanted, s) {
			unix.Close(fd)
			delete(r, s)
		}
	}
}

func bind(s socket, reuse bool) (int, error) {
	kind := unix.SOCK_STREAM
	if s.proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := prepare(fd, s, reuse); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func prepare(fd int, s socket, reuse bool) error {
	if reuse {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if s.proto == "udp" {
		if err := receiveNothing(fd); err != nil {
			return err
		}
	}
	return unix.Bind(fd, &unix.SockaddrInet4{Port: int(s.port), Addr: s.ip.As4()})
}

// receiveNothing attaches the filter program that refuses every packet: nobody
// reads this socket, and its queue should not fill the memory.
func receiveNothing(fd int) error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
