package daemon

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestKeepInherited(t *testing.T) { testKeeps(t, keepInherited) }
func TestKeepListed(t *testing.T)    { testKeeps(t, keepListed) }

func testKeeps(t *testing.T, keep func() error) {
	var p [2]int
	if err := unix.Pipe2(p[:], 0); err != nil { // as a shell opens them
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	if err := keep(); err != nil {
		t.Fatal(err)
	}
	for _, fd := range p {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil {
			t.Errorf("descriptor %d: %v: it is for us to use", fd, err)
		}
		if flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d goes to every program that the daemon starts", fd)
		}
	}
}
