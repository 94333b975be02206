package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// parseInotify takes the watch descriptors out of events that carry no names.
func parseInotify(b []byte) (hit, gone []int32) {
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		switch {
		case mask&unix.IN_IGNORED != 0:
			gone = append(gone, wd)
		case mask&unix.IN_MODIFY != 0:
			hit = append(hit, wd)
		}
		b = b[min(size, len(b)):]
	}
	return hit, gone
}

// eventfdSource holds an eventfd for each group, which v1 signals when the
// group runs out of memory and when it is removed.
type eventfdSource struct {
	host  *host
	epoll int
}

func newEventfdSource(h *host) (source, int, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, 0, err
	}
	// An epoll descriptor never blocks by itself; the flag tells os.NewFile
	// that it may go into the runtime's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, 0, err
	}
	return &eventfdSource{host: h, epoll: fd}, fd, nil
}

func (s *eventfdSource) add(g Group) (int32, error) {
	if s.host.v1["memory"] == "" {
		return 0, errors.New("the host has no memory controller")
	}
	control, err := os.Open(s.host.file("memory", g.Path, "memory.oom_control"))
	if err != nil {
		return 0, err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return 0, err
	}
	err = writeFile(s.host.file("memory", g.Path, "cgroup.event_control"), fmt.Sprintf("%d %d", fd, control.Fd()))
	if err == nil {
		// Edge-triggered, so that the eventfd need not be read: its number may
		// be another file's by the time the event is seen.
		err = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)})
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return int32(fd), nil
}

// remove closes the eventfd, which also ends the registration.
func (s *eventfdSource) remove(key int32) { unix.Close(int(key)) }

// A signal earns as many looks as there are pauses; a group that was removed is
// noticed at the first.
func (s *eventfdSource) looks() int { return len(lookPauses) }

func (s *eventfdSource) read(fd int) (hit, gone []int32, err error) {
	var events [64]unix.EpollEvent
	n, err := unix.EpollWait(fd, events[:], 0)
	if errors.Is(err, unix.EINTR) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range events[:n] {
		hit = append(hit, e.Fd)
	}
	return hit, nil, nil
}
