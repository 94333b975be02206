package spec

import (
	"fmt"
	"math"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// limitNames are those of setrlimit(2).
var limitNames = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
	"rttime", "sigpending", "stack"}

// rlimits translates limits. The keeper lowers those that the host cannot give.
func rlimits(list []Ulimit) ([]specs.POSIXRlimit, error) {
	var out []specs.POSIXRlimit
	for _, u := range list {
		name := strings.TrimPrefix(strings.ToLower(u.Name), "rlimit_")
		if !slices.Contains(limitNames, name) {
			return nil, fmt.Errorf("ulimit %q: no such limit%s", u.Name, nearMiss(name, limitNames))
		}
		r := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: unlimited(u.Soft), Hard: unlimited(u.Hard)}
		if r.Soft > r.Hard {
			return nil, fmt.Errorf("ulimit %s: the soft limit %d is above the hard one, %d", name, u.Soft, u.Hard)
		}
		out = slices.DeleteFunc(out, func(o specs.POSIXRlimit) bool { return o.Type == r.Type })
		out = append(out, r)
	}
	return out, nil
}

// unlimited is RLIM_INFINITY for less than nothing.
func unlimited(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}
