package keeper

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// host is what this machine lets us give to a container. In a container or a
// small virtual machine root may lack capabilities; then a spec gets as much
// as there is, with a warning, instead of failing.
type host struct {
	caps        map[string]bool // permitted and in the bounding set
	oomScoreAdj int             // ours: without CAP_SYS_RESOURCE nothing below it can be set
}

const capSysResource = "CAP_SYS_RESOURCE"

func readHost() (host, error) {
	h := host{caps: map[string]bool{}}
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	if err != nil {
		return h, fmt.Errorf("own capabilities: %w", err)
	}
	for _, c := range capability.ListKnown() {
		if own.Get(capability.PERMITTED, c) && own.Get(capability.BOUNDING, c) {
			h.caps["CAP_"+strings.ToUpper(c.String())] = true
		}
	}
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return h, err
	}
	h.oomScoreAdj, err = strconv.Atoi(strings.TrimSpace(string(b)))
	return h, err
}

// fit takes from spec what the host cannot give, and says so.
func (h host) fit(spec *specs.Spec, log *slog.Logger) {
	h.fitCaps(spec.Process.Capabilities, log)
	if spec.Process.OOMScoreAdj == nil {
		// Never the keeper's own: it is often protected, which is for it alone. Raising it is always allowed.
		adj := 0
		if !h.caps[capSysResource] {
			adj = max(adj, h.oomScoreAdj)
		}
		spec.Process.OOMScoreAdj = &adj
	}
	if h.caps[capSysResource] {
		return
	}
	if adj := spec.Process.OOMScoreAdj; adj != nil && *adj < h.oomScoreAdj {
		log.Warn("oom_score_adj cannot go below the keeper's without CAP_SYS_RESOURCE", "wanted", *adj, "set", h.oomScoreAdj)
		*adj = h.oomScoreAdj
	}
	for i := range spec.Process.Rlimits {
		fitRlimit(&spec.Process.Rlimits[i], log)
	}
}

func (h host) fitCaps(caps *specs.LinuxCapabilities, log *slog.Logger) {
	if caps == nil {
		return
	}
	var missing []string
	for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted, &caps.Inheritable, &caps.Ambient} {
		*set = slices.DeleteFunc(slices.Clone(*set), func(c string) bool {
			if !h.caps[c] && !slices.Contains(missing, c) {
				missing = append(missing, c)
			}
			return !h.caps[c]
		})
	}
	if len(missing) > 0 {
		log.Warn("capabilities are not to be had on this host", "missing", strings.Join(missing, " "))
	}
}

func fitRlimit(r *specs.POSIXRlimit, log *slog.Logger) {
	n, ok := rlimitNumbers[r.Type]
	var now unix.Rlimit
	if !ok || unix.Getrlimit(n, &now) != nil || r.Hard <= now.Max {
		return
	}
	log.Warn("a hard limit cannot be raised without CAP_SYS_RESOURCE", "limit", r.Type, "wanted", r.Hard, "set", now.Max)
	r.Hard = now.Max
	r.Soft = min(r.Soft, now.Max)
}

var rlimitNumbers = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

// rlimits translates a spec's limits.
func rlimits(list []specs.POSIXRlimit) ([]rlimit, error) {
	var out []rlimit
	for _, r := range list {
		n, ok := rlimitNumbers[r.Type]
		if !ok {
			return nil, fmt.Errorf("resource limit %q is not known", r.Type)
		}
		out = append(out, rlimit{Type: n, Soft: r.Soft, Hard: r.Hard})
	}
	return out, nil
}
