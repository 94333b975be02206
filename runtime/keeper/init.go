package keeper

// The C code of the container's init is compiled into the keeper's own binary:
// `go build` is all it takes.

// #include "init.h"
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// initExe is the folder in which a container's process finds the init: it is
// one of the descriptors that libcontainer passes on. No mount point is needed for it.
const initExe = "/proc/self/fd/"

// initJob collects what a process of a container gets along: the init's own
// binary, and the descriptors it talks to.
type initJob struct {
	files []*os.File // beginning with descriptor 3
	exe   int        // their numbers inside, -1 for none
	err   int
	rec   int
	flt   int
	flags uint
	late  bool // the filter is not for the init itself
	input int  // the end of stdin that is written to
}

// newInitJob begins with what is the program's own: descriptors that it keeps.
func newInitJob(exe *os.File, programs ...*os.File) *initJob {
	j := &initJob{files: programs, err: -1, rec: -1, flt: -1, input: -1}
	j.exe = j.add(exe)
	return j
}

// add passes f and returns the number it has inside.
func (j *initJob) add(f *os.File) int {
	j.files = append(j.files, f)
	return 2 + len(j.files)
}

// args is the command line: see the head of init.c.
func (j *initJob) args(stay bool, program []string) []string {
	mode := "x"
	switch {
	case stay && j.late:
		mode = "l"
	case stay:
		mode = "i"
	}
	for _, n := range []int{j.err, j.rec, j.flt, int(j.flags), j.input} {
		mode += ":" + strconv.Itoa(n)
	}
	return append([]string{initExe + strconv.Itoa(j.exe), "wherry-init", mode}, program...)
}

// awaitExec reads the error pipe: after the init's greeting it closes without
// another word once the program has been exec'd. Whoever calls it names the
// program in the error.
func awaitExec(r io.Reader) error {
	var hello [1]byte
	if _, err := io.ReadFull(r, hello[:]); err != nil || string(hello[:]) != C.WHERRY_GREETING {
		return errors.New("init: it did not start, or was killed at once")
	}
	var b [8]byte
	_, err := io.ReadFull(r, b[:])
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("error pipe: %w", err)
	}
	part := binary.NativeEndian.Uint32(b[:])
	return execError(part, unix.Errno(binary.NativeEndian.Uint32(b[4:])))
}

// execError translates the init's report: what could not be found is 127, what
// could not be run 126, as in a shell.
func execError(part uint32, errno unix.Errno) error {
	switch part {
	case C.WHERRY_FILTER:
		return fmt.Errorf("load seccomp filter: %w", errno)
	case C.WHERRY_FORK:
		return fmt.Errorf("fork: %w", errno)
	case C.WHERRY_RECORD:
		return fmt.Errorf("map exit record: %w", errno)
	case C.WHERRY_INTERPRETER:
		return fmt.Errorf("its interpreter or loader is missing: %w", runtime.ErrCommand)
	}
	if errno == unix.ENOENT || errno == unix.ENOTDIR {
		return runtime.ErrCommand
	}
	return fmt.Errorf("%w: %w", runtime.ErrNotExecutable, errno)
}
