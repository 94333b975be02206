package network

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holderText names the process that has a port, for the error message:
// " (by nginx, pid 812)". It looks through /proc and is called only when a
// port is taken. The caller's thread is in the host's namespace.
func holderText(s socket) string {
	inodes := map[string]bool{}
	for _, suffix := range []string{"", "6"} {
		table, err := os.ReadFile("/proc/thread-self/net/" + s.proto + suffix)
		if err != nil {
			continue
		}
		for _, inode := range inodesAt(string(table), s) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	pid, comm := holderOf(inodes)
	if pid == 0 {
		return " (by a process of the host)"
	}
	return fmt.Sprintf(" (by %s, pid %d)", comm, pid)
}

// inodesAt reads a table of /proc/net/{tcp,udp}{,6} and returns the sockets
// that stand in the way of s.
func inodesAt(table string, s socket) []string {
	const listening, unconnected = "0A", "07"
	var out []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || (f[3] != listening && f[3] != unconnected) {
			continue
		}
		local, ok := parseProcAddress(f[1])
		if !ok || local.Port() != s.port {
			continue
		}
		if a := local.Addr(); a == s.ip || a.IsUnspecified() || s.ip.IsUnspecified() {
			out = append(out, f[9])
		}
	}
	return out
}

// parseProcAddress reads 0100007F:1F90: each 32-bit word of the address is in
// the byte order of the machine.
func parseProcAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), true
}

// holderOf finds the first process with one of these sockets open.
func holderOf(links map[string]bool) (pid int, comm string) {
	if len(links) == 0 {
		return 0, ""
	}
	folders, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, folder := range folders {
		fds, err := os.ReadDir(folder)
		if err != nil {
			continue // ended, or not ours to see
		}
		for _, fd := range fds {
			target, err := os.Readlink(filepath.Join(folder, fd.Name()))
			if err != nil || !links[target] {
				continue
			}
			process := filepath.Dir(folder)
			pid, _ := strconv.Atoi(filepath.Base(process))
			name, _ := os.ReadFile(filepath.Join(process, "comm"))
			return pid, strings.TrimSpace(string(name))
		}
	}
	return 0, ""
}
