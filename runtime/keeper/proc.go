package keeper

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// procStat is the part of /proc/PID/stat that identifies a process and, once
// it is a zombie, tells how it ended.
type procStat struct {
	state     byte
	startTime uint64 // clock ticks since boot
	exitCode  int    // raw wait status; only root sees it
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	return parseStat(b)
}

// parseStat skips the command name, which may hold anything, by its last
// closing bracket. Fields are counted as in proc(5), from 1.
func parseStat(b []byte) (procStat, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, fmt.Errorf("stat: no command name in %q", b)
	}
	f := strings.Fields(string(b[i+1:])) // f[0] is field 3
	if len(f) < 50 {
		return procStat{}, fmt.Errorf("stat: %d fields after the command name", len(f))
	}
	start, err := strconv.ParseUint(f[22-3], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("stat: start time: %w", err)
	}
	code, err := strconv.Atoi(f[52-3])
	if err != nil {
		return procStat{}, fmt.Errorf("stat: exit code: %w", err)
	}
	return procStat{state: f[0][0], startTime: start, exitCode: code}, nil
}

// holdChild holds the oldest child of pid; nil if it has none. The number is
// looked up again once it is held, as it may have passed on in between.
func holdChild(pid int) *process {
	child := firstChild(pid)
	if child == 0 {
		return nil
	}
	proc, err := openProcess(child)
	if err != nil {
		return nil
	}
	if firstChild(pid) != child {
		proc.close()
		return nil
	}
	return proc
}

// firstChild is the oldest child of pid, 0 if it has none.
func firstChild(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	child, _, _ := strings.Cut(string(b), " ")
	n, _ := strconv.Atoi(child)
	return n
}
