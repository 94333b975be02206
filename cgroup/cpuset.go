package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// most is above every number of a processor or memory node (CONFIG_NR_CPUS is 8192 at most).
const most = 1 << 16

// ParseSet reads a list of processors or memory nodes, "0-3,5". An empty text
// is an empty set.
func ParseSet(text string) ([]int, error) {
	if text == "" {
		return nil, nil
	}
	var set []int
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := setNumber(from)
		if err != nil {
			return nil, fmt.Errorf("%q is not a list such as 0-3,5: %w", text, err)
		}
		last := first
		if isRange {
			if last, err = setNumber(to); err != nil {
				return nil, fmt.Errorf("%q is not a list such as 0-3,5: %w", text, err)
			}
		}
		if last < first {
			return nil, fmt.Errorf("%q is not a list such as 0-3,5: %s goes backwards", text, part)
		}
		for n := first; n <= last; n++ {
			set = append(set, n)
		}
	}
	slices.Sort(set)
	return slices.Compact(set), nil
}

func setNumber(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n >= most {
		return 0, fmt.Errorf("%q is not a number of one", text)
	}
	return int(n), nil
}

// formatSet is the inverse of ParseSet, as the kernel shows it.
func formatSet(set []int) string {
	var b strings.Builder
	for i := 0; i < len(set); {
		j := i
		for j+1 < len(set) && set[j+1] == set[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(set[i]))
		if j > i {
			b.WriteString("-" + strconv.Itoa(set[j]))
		}
		i = j + 1
	}
	return b.String()
}

// without tells what of the set is not in the other; nothing if all of it is.
func without(set, other []int) []int {
	return slices.DeleteFunc(slices.Clone(set), func(n int) bool { return slices.Contains(other, n) })
}

// PageSize reads a name of the kernel's for a size of huge pages, "2MB", "1GB".
func PageSize(name string) (int64, error) {
	for _, u := range []struct {
		suffix string
		bytes  int64
	}{{"KB", 1 << 10}, {"MB", 1 << 20}, {"GB", 1 << 30}} {
		if number, ok := strings.CutSuffix(name, u.suffix); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			if err == nil && n > 0 {
				return n * u.bytes, nil
			}
		}
	}
	return 0, fmt.Errorf("%q is not a size of pages, such as 2MB or 1GB", name)
}

// PageSizeName is the kernel's name for a size of huge pages.
func PageSizeName(bytes int64) string {
	switch {
	case bytes >= 1<<30 && bytes%(1<<30) == 0:
		return strconv.FormatInt(bytes>>30, 10) + "GB"
	case bytes >= 1<<20 && bytes%(1<<20) == 0:
		return strconv.FormatInt(bytes>>20, 10) + "MB"
	}
	return strconv.FormatInt(bytes>>10, 10) + "KB"
}
