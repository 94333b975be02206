package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Pressure says how much work waited for a resource (PSI, Linux 4.20).
type Pressure struct {
	Host   bool  `json:"host,omitempty"` // of the whole host: the group has none of its own, as on v1
	CPU    Stall `json:"cpu"`
	Memory Stall `json:"memory"`
	IO     Stall `json:"io"`
}

// Stall is the part of the time, in percent, in which some or all of the work
// waited, over the last 10 and 60 seconds, and the sum since the group was made.
type Stall struct {
	Some10    float64 `json:"some10"`
	Some60    float64 `json:"some60"`
	SomeTotal uint64  `json:"some_total_usec"`
	Full10    float64 `json:"full10"`
	Full60    float64 `json:"full60"`
	FullTotal uint64  `json:"full_total_usec"`
}

// Pressure reads the group's pressure, or that of the host where the group has
// no files for it. A kernel without PSI gives an error.
func (g Group) Pressure() (Pressure, error) {
	h, err := g.host("read pressure")
	if err != nil {
		return Pressure{}, err
	}
	if h.mode == Unified {
		if dirs := h.dirs(g.Path); len(dirs) > 0 {
			if p, err := readPressure(dirs[0], ".pressure"); err == nil {
				return p, nil
			}
		}
	}
	p, err := readPressure("/proc/pressure", "")
	p.Host = true
	return p, g.wrap("read pressure", err)
}

func readPressure(dir, suffix string) (p Pressure, err error) {
	for name, to := range map[string]*Stall{"cpu": &p.CPU, "memory": &p.Memory, "io": &p.IO} {
		b, err := os.ReadFile(filepath.Join(dir, name+suffix))
		if err != nil {
			return p, err
		}
		if *to, err = parseStall(string(b)); err != nil {
			return p, fmt.Errorf("%s: %w", name+suffix, err)
		}
	}
	return p, nil
}

// parseStall reads lines like "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
// Old kernels have no line "full" for the processor.
func parseStall(s string) (Stall, error) {
	var st Stall
	for line := range strings.Lines(s) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		avg10, avg60, total := &st.Some10, &st.Some60, &st.SomeTotal
		switch kind {
		case "some":
		case "full":
			avg10, avg60, total = &st.Full10, &st.Full60, &st.FullTotal
		default:
			continue
		}
		for _, field := range strings.Fields(rest) {
			key, v, _ := strings.Cut(field, "=")
			var err error
			switch key {
			case "avg10":
				*avg10, err = strconv.ParseFloat(v, 64)
			case "avg60":
				*avg60, err = strconv.ParseFloat(v, 64)
			case "total":
				*total, err = strconv.ParseUint(v, 10, 64)
			}
			if err != nil {
				return Stall{}, fmt.Errorf("%s is not a number: %q", key, v)
			}
		}
	}
	return st, nil
}
