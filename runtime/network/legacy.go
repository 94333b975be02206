package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The iptables of before nftables keeps its rules where netlink cannot see
// them. They are read as iptables-legacy does, by two socket options whose
// layout linux/netfilter_ipv4/ip_tables.h fixed for ever.
const (
	iptGetInfo    = 64
	iptGetEntries = 65

	xtTableName    = 32
	iptInfoSize    = 84
	iptInfoHooks   = 36 // hook_entry[5]
	iptInfoUnder   = 56 // underflow[5]: where each hook's policy stands
	iptInfoSizeAt  = 80
	iptEntriesHead = 40

	iptEntrySize   = 112
	iptInIface     = 16
	iptOutIface    = 32
	iptInMask      = 48
	iptOutMask     = 64
	iptProto       = 80 // proto, flags and inverse flags: four bytes
	iptTargetAt    = 88
	iptNextAt      = 90
	xtTargetName   = 2
	xtVerdict      = 32
	xtTargetLength = 36

	xtAccept = -2 // -NF_ACCEPT - 1
	xtDrop   = -1 // -NF_DROP - 1

	hookForward = unix.NF_INET_FORWARD
)

// legacyChain returns the legacy FORWARD chain if its policy is to drop. It
// asks only where the table exists: asking would create it.
func (h *host) legacyChain(bridge string) (c *foreignChain, err error) {
	err = h.do(func() error {
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if errors.Is(err, os.ErrNotExist) || err == nil && !slices.Contains(strings.Fields(string(names)), "filter") {
			return nil
		}
		if err != nil {
			return err
		}
		info, entries, err := readLegacyFilter()
		if err != nil {
			return err
		}
		c, err = parseLegacy(info, entries, bridge)
		return err
	})
	return c, err
}

func readLegacyFilter() (info, entries []byte, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(fd)
	info = make([]byte, iptInfoSize)
	copy(info, "filter")
	if err := getsockopt(fd, iptGetInfo, info); err != nil {
		return nil, nil, err
	}
	size := binary.NativeEndian.Uint32(info[iptInfoSizeAt:])
	entries = make([]byte, iptEntriesHead+int(size))
	copy(entries, "filter")
	binary.NativeEndian.PutUint32(entries[xtTableName:], size)
	if err := getsockopt(fd, iptGetEntries, entries); err != nil {
		return nil, nil, err
	}
	return info, entries[iptEntriesHead:], nil
}

func getsockopt(fd, option int, buf []byte) error {
	length := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return fmt.Errorf("iptables socket option %d: %w", option, errno)
	}
	return nil
}

// parseLegacy reads the table's rules, which stand one behind the other. It
// returns nil if forwarded packets are not dropped by the policy.
func parseLegacy(info, entries []byte, bridge string) (*foreignChain, error) {
	if len(info) < iptInfoSize {
		return nil, errors.New("iptables: short table information")
	}
	first := binary.NativeEndian.Uint32(info[iptInfoHooks+4*hookForward:])
	policy := binary.NativeEndian.Uint32(info[iptInfoUnder+4*hookForward:])
	c := foreignChain{command: "iptables-legacy", family: "ip", table: "filter", name: "FORWARD"}
	drops := false
	for at := uint32(0); int(at)+iptEntrySize <= len(entries); {
		e := entries[at:]
		target := int(binary.NativeEndian.Uint16(e[iptTargetAt:]))
		next := uint32(binary.NativeEndian.Uint16(e[iptNextAt:]))
		if next < iptEntrySize || target < iptEntrySize || target+xtVerdict > len(e) {
			return nil, errors.New("iptables: unreadable rule")
		}
		name, _, _ := strings.Cut(string(e[target+xtTargetName:target+xtVerdict-1]), "\x00")
		verdict := int32(0)
		if name == "" && target+xtTargetLength <= len(e) {
			verdict = int32(binary.NativeEndian.Uint32(e[target+xtVerdict:]))
		}
		if name == "ERROR" && target+xtTargetLength <= len(e) {
			// How a chain's name is written down.
			chain, _, _ := strings.Cut(string(e[target+xtVerdict:min(len(e), target+xtVerdict+30)]), "\x00")
			c.siblings = append(c.siblings, chain)
		}
		if at == policy {
			drops = verdict == xtDrop
		} else {
			p := legacyPassing(e, target, verdict, bridge)
			c.all = append(c.all, p)
			if at >= first && at < policy {
				c.base = append(c.base, p)
			}
		}
		at += next
	}
	if !drops {
		return nil, nil
	}
	return &c, nil
}

func legacyPassing(e []byte, target int, verdict int32, bridge string) passing {
	conditions := target != iptEntrySize || !zero(e[:iptInIface]) || !zero(e[iptProto:iptProto+4])
	if verdict != xtAccept || conditions {
		return passing{}
	}
	in, inSet := legacyDevice(e[iptInIface:], e[iptInMask:], bridge)
	out, outSet := legacyDevice(e[iptOutIface:], e[iptOutMask:], bridge)
	return passing{any: !inSet && !outSet, in: in && !outSet, into: out && !inSet}
}

// legacyDevice tells whether a device is asked for, and whether it is ours.
func legacyDevice(name, mask []byte, bridge string) (ours, set bool) {
	var want [unix.IFNAMSIZ]byte
	copy(want[:], bridge)
	ours = true
	for i := range want {
		set = set || mask[i] != 0
		ours = ours && (want[i]^name[i])&mask[i] == 0
	}
	return ours && set, set
}

func zero(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
}
