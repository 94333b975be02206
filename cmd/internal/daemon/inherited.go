package daemon

import (
	"fmt"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// keepInherited keeps to ourselves what whoever started us has left open, by mistake or for us alone: otherwise the keeper, which
// outlives us and them, would hold it for as long as it runs. A shell's pipe would then never end, nor a lock be free.
func keepInherited() error {
	if unix.CloseRange(firstInherited, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	return keepListed()
}

const firstInherited = 3 // behind stderr

// keepListed is keepInherited before Linux 5.11, or under a seccomp filter that is older than the call.
func keepListed() error {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("inherited descriptors: %w", err)
	}
	for _, e := range names {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= firstInherited {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
