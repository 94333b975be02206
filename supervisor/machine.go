package supervisor

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/spec"
)

// readMachine is what a container's spec depends on of this host. What cannot
// be read stays zero: a kernel that is new enough, and no processors known.
func readMachine() spec.Machine {
	var m spec.Machine
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel, _ = spec.ParseKernel(unix.ByteSliceToString(u.Release[:]))
	}
	if b, err := os.ReadFile("/sys/devices/system/cpu/possible"); err == nil {
		m.CPUs = processors(string(b))
	}
	return m
}

// processors is one more than the highest number of a list like "0-3,8-11".
func processors(list string) int {
	list = strings.TrimSpace(list)
	n, err := strconv.Atoi(list[strings.LastIndexAny(list, ",-")+1:])
	if err != nil {
		return 0
	}
	return n + 1
}
