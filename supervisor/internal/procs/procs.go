// Package procs answers: what are these processes doing, and what do they use?
//
// It reads /proc and nothing else. Processes that end meanwhile are left out.
// All that stands there is said by the processes themselves: it is for people
// to look at, and nothing is decided by it.
package procs

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Process is one process of the host.
type Process struct {
	Pid     int           // in the host's PID namespace
	Inside  int           // in its own
	Parent  int           // on the host
	UID     int64         // as it sees itself; -1 if it has none there
	State   string        // R, S, D, T, Z ... as in proc(5)
	Wait    string        // of one in state D: the kernel function that it sleeps in
	CPU     time.Duration // user and system
	RSS     int64         // bytes
	Threads int
	Command string
}

const (
	// userHZ is what the kernel counts processor time in for /proc, on every
	// architecture that Go runs on.
	userHZ      = 100
	mostCommand = 4096
)

// Read describes the processes, in the order of the list. proc is "/proc".
func Read(proc string, pids []int) []Process {
	list := make([]Process, 0, len(pids))
	for _, pid := range pids {
		if p, ok := read(proc, pid); ok {
			list = append(list, p)
		}
	}
	return list
}

func read(proc string, pid int) (Process, bool) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Process{}, false
	}
	p, ok := parseStat(stat)
	if !ok {
		return p, false
	}
	p.Pid, p.Inside, p.UID = pid, pid, -1
	status, _ := os.ReadFile(filepath.Join(dir, "status"))
	uid := p.readStatus(string(status))
	ids, err := os.ReadFile(filepath.Join(dir, "uid_map"))
	if err == nil {
		p.UID = inside(string(ids), uid)
	}
	if command, _ := os.ReadFile(filepath.Join(dir, "cmdline")); len(command) > 0 {
		p.Command = clean(command)
	}
	if p.State == "D" {
		p.Wait = waitsIn(dir)
	}
	return p, true
}

// parseStat skips the command name, which may hold anything, by its last
// closing bracket. Fields are counted as in proc(5), from 1.
func parseStat(b []byte) (p Process, ok bool) {
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return p, false
	}
	f := strings.Fields(string(b[to+1:])) // f[0] is field 3
	if len(f) < 24-2 {
		return p, false
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(f[field-3], 10, 64)
		return n
	}
	p.State, p.Parent, p.Threads = f[0], int(number(4)), int(number(20))
	p.CPU = time.Duration(number(14)+number(15)) * time.Second / userHZ
	p.RSS = number(24) * int64(os.Getpagesize())
	p.Command = "[" + clean(b[from+1:to]) + "]"
	return p, true
}

// readStatus takes the pid inside, and returns the uid on the host.
func (p *Process) readStatus(text string) (uid int64) {
	uid = -1
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch key {
		case "NSpid":
			p.Inside, _ = strconv.Atoi(f[len(f)-1])
		case "Uid":
			uid, _ = strconv.ParseInt(f[min(1, len(f)-1)], 10, 64) // the effective one
		}
	}
	return uid
}

// inside maps a uid of the host to that of a user namespace.
func inside(ids string, uid int64) int64 {
	for line := range strings.Lines(ids) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		in, err1 := strconv.ParseInt(f[0], 10, 64)
		out, err2 := strconv.ParseInt(f[1], 10, 64)
		n, err3 := strconv.ParseInt(f[2], 10, 64)
		if err1 == nil && err2 == nil && err3 == nil && out <= uid && uid < out+n {
			return in + uid - out
		}
	}
	return -1
}

// clean makes one line of a command that may hold anything: arguments end with
// zero bytes, and control characters would reach the terminal.
func clean(b []byte) string {
	if len(b) > mostCommand {
		b = b[:mostCommand]
	}
	text := strings.TrimRight(strings.ToValidUTF8(string(b), "?"), "\x00")
	return strings.Map(func(r rune) rune {
		if r == 0 {
			return ' '
		}
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

// waitsIn is where in the kernel a process sleeps.
func waitsIn(dir string) string {
	if b, err := os.ReadFile(filepath.Join(dir, "wchan")); err == nil && len(b) > 0 && string(b) != "0" {
		return clean(b)
	}
	// The first line is "[<0>] do_something+0x1/0x2".
	b, err := os.ReadFile(filepath.Join(dir, "stack"))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	_, name, _ := strings.Cut(line, "] ")
	name, _, _ = strings.Cut(name, "+")
	return clean([]byte(name))
}

// Traffic sums up what has come and gone over the network devices of the
// process's namespace, but for its loopback.
func Traffic(proc string, pid int) (received, sent uint64, ok bool) {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "net/dev"))
	if err != nil {
		return 0, 0, false
	}
	for line := range strings.Lines(string(b)) {
		name, rest, found := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !found || len(f) < 9 || strings.TrimSpace(name) == "lo" {
			continue
		}
		in, err1 := strconv.ParseUint(f[0], 10, 64)
		out, err2 := strconv.ParseUint(f[8], 10, 64)
		if err1 == nil && err2 == nil {
			received, sent = received+in, sent+out
		}
	}
	return received, sent, true
}
