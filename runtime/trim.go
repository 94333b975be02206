package runtime

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// TrimMemory gives back to the host what a burst of work took: Go would keep free memory for the
// next one. With it go the pages of our own program, which are most of a process that now
// sleeps; what is needed again comes back from the page cache.
func TrimMemory() {
	debug.FreeOSMemory()
	dropCode()
}

func dropCode() {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range codeMappings(f) {
		// Failure changes nothing.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// codeMappings are those of files that cannot be written through and of which no page has become
// our own: a relocated page would be lost for good.
func codeMappings(smaps io.Reader) (l []mapping) {
	var m mapping
	file := false
	for s := bufio.NewScanner(smaps); s.Scan(); {
		line := s.Text()
		var perms, offset, device string
		var inode uint64
		var start, end uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x %s %s %s %d", &start, &end, &perms, &offset, &device, &inode); n == 6 {
			m, file = mapping{start, end}, inode != 0 && strings.HasPrefix(perms, "r-") && strings.HasSuffix(perms, "p")
			continue
		}
		if kb, ok := strings.CutPrefix(line, "Anonymous:"); ok && file && strings.TrimSpace(kb) == "0 kB" {
			l = append(l, m)
		}
	}
	return l
}
