package usernamespace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// span is a range of ids: from first up to, without, end.
type span struct{ first, end uint64 }

func (s span) slots() uint64            { return (s.end - s.first) / Size }
func (s span) slot(i uint64) uint64     { return s.first + i*Size }
func (s span) overlaps(other span) bool { return s.first < other.end && other.first < s.end }
func overlapsAny(s span, list []span) bool {
	for _, o := range list {
		if s.overlaps(o) {
			return true
		}
	}
	return false
}

// ours are the ranges of ids that nobody else hands out, see the package's doc
// (systemd: UIDS-GIDS; sssd-ldap(5): ldap_idmap_range_max).
var ours = []span{
	{2000224256, 2147352576},
	{1879048192, 2000158720},
}

// others are the ids that this host has given to somebody, or that we have not got.
func others() ([]span, error) {
	var all []span
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, parseSubIDs(f)...)
		f.Close()
	}
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		missing, err := missingIDs(string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, missing...)
	}
	return all, nil
}

// parseSubIDs reads subuid(5): NAME:FIRST:COUNT. Lines that mean nothing are the
// administrator's to find, not ours to fail at.
func parseSubIDs(r io.Reader) []span {
	var all []span
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(f) != 3 {
			continue
		}
		first, err := strconv.ParseUint(f[1], 10, 32)
		if err != nil {
			continue
		}
		count, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || count == 0 {
			continue
		}
		all = append(all, span{first, first + count})
	}
	return all
}

// missingIDs are the gaps of a map as /proc/PID/uid_map shows it.
func missingIDs(text string) ([]span, error) {
	have := []span{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("line %q: not a map", line)
		}
		first, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return nil, err
		}
		count, err := strconv.ParseUint(f[2], 10, 33)
		if err != nil {
			return nil, err
		}
		have = append(have, span{first, first + count})
	}
	missing := []span{{0, 1 << 32}}
	for _, h := range have {
		var rest []span
		for _, m := range missing {
			if !m.overlaps(h) {
				rest = append(rest, m)
				continue
			}
			if m.first < h.first {
				rest = append(rest, span{m.first, h.first})
			}
			if h.end < m.end {
				rest = append(rest, span{h.end, m.end})
			}
		}
		missing = rest
	}
	return missing, nil
}
