package unit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/wherry-run/wherry/cgroup"
)

// LimitFlags are the flags of `ctl run` and `ctl update` that limit, in Docker's
// forms. Empty means not given; 0 or -1 lifts a limit.
type LimitFlags struct {
	Memory, MemoryReservation, MemoryHigh  string
	MemorySwap                             string // memory and swap together, as in Docker; -1: no limit of swap
	CPUs, CPUReservation, CPUShares        string
	CpusetCPUs, CpusetMems                 string // "none" for all
	Pids                                   string
	IOWeight                               string
	ReadBps, WriteBps, ReadIOps, WriteIOps []string // "/dev/sda:10m"
}

// LimitsChange is what limits are to become; nil leaves one as it is.
type LimitsChange struct {
	Memory            *int64        `json:"memory,omitempty"` // bytes; 0 for no limit, here as below
	MemoryReservation *int64        `json:"memory_reservation,omitempty"`
	MemoryHigh        *int64        `json:"memory_high,omitempty"`
	MemorySwap        *int64        `json:"memory_swap,omitempty"` // memory and swap together; -1: no limit of swap
	CPUs              *float64      `json:"cpus,omitempty"`
	CPUReservation    *float64      `json:"cpu_reservation,omitempty"`
	CPUShares         *uint64       `json:"cpu_shares,omitempty"`
	CpusetCPUs        *string       `json:"cpuset_cpus,omitempty"`
	CpusetMems        *string       `json:"cpuset_mems,omitempty"`
	Pids              *int64        `json:"pids,omitempty"`
	IOWeight          *uint16       `json:"io_weight,omitempty"`
	ReadBytes         []cgroup.Rate `json:"read_bytes,omitempty"` // by device, a rate of 0 for no limit
	WriteBytes        []cgroup.Rate `json:"write_bytes,omitempty"`
	Reads             []cgroup.Rate `json:"reads,omitempty"`
	Writes            []cgroup.Rate `json:"writes,omitempty"`
}

// Change reads the flags. All that is wrong is reported at once.
func (f LimitFlags) Change() (LimitsChange, error) {
	var c LimitsChange
	var errs []error
	note := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", flag, err))
		}
	}
	note("--memory", optional(f.Memory, &c.Memory, lifting(parseMemory)))
	note("--memory-reservation", optional(f.MemoryReservation, &c.MemoryReservation, lifting(ParseSize)))
	note("--memory-high", optional(f.MemoryHigh, &c.MemoryHigh, lifting(parseMemory)))
	note("--memory-swap", optional(f.MemorySwap, &c.MemorySwap, func(text string) (int64, error) {
		if text == "-1" {
			return -1, nil
		}
		return ParseSize(withBytes(text))
	}))
	cores := func(text string) (float64, error) {
		if text == "0" {
			return 0, nil
		}
		return parseFloat(text, leastCPUs, mostCPUs)
	}
	note("--cpus", optional(f.CPUs, &c.CPUs, cores))
	note("--cpu-reservation", optional(f.CPUReservation, &c.CPUReservation, cores))
	note("--cpu-shares", optional(f.CPUShares, &c.CPUShares, func(text string) (uint64, error) {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n != 0 && (n < leastShares || n > mostShares) {
			return 0, faultf(fmt.Sprintf("they go from %d to %d", leastShares, mostShares), "%q is not a number of shares", text)
		}
		return n, nil
	}))
	set := func(text string) (string, error) {
		if text == "none" {
			return "", nil
		}
		return parseSet(text)
	}
	note("--cpuset-cpus", optional(f.CpusetCPUs, &c.CpusetCPUs, set))
	note("--cpuset-mems", optional(f.CpusetMems, &c.CpusetMems, set))
	note("--pids-limit", optional(f.Pids, &c.Pids, parsePids))
	note("--blkio-weight", optional(f.IOWeight, &c.IOWeight, parseWeight))
	for _, r := range []struct {
		flag  string
		texts []string
		bytes bool
		to    *[]cgroup.Rate
	}{
		{"--device-read-bps", f.ReadBps, true, &c.ReadBytes}, {"--device-write-bps", f.WriteBps, true, &c.WriteBytes},
		{"--device-read-iops", f.ReadIOps, false, &c.Reads}, {"--device-write-iops", f.WriteIOps, false, &c.Writes},
	} {
		for _, text := range r.texts {
			rate, err := parseRate(text, r.bytes)
			note(r.flag, err)
			*r.to = append(*r.to, rate)
		}
	}
	return c, errors.Join(errs...)
}

// optional reads a flag that was given.
func optional[T any](text string, to **T, parse func(string) (T, error)) error {
	if text == "" {
		return nil
	}
	got, err := parse(text)
	if err == nil {
		*to = &got
	}
	return err
}

// lifting reads 0 and -1 as no limit, and a bare number as bytes.
func lifting(parse func(string) (int64, error)) func(string) (int64, error) {
	return func(text string) (int64, error) {
		if text == "0" || text == "-1" {
			return 0, nil
		}
		return parse(withBytes(text))
	}
}

// withBytes gives a bare number the unit that it has in Docker.
func withBytes(text string) string {
	if strings.Trim(text, "0123456789") == "" {
		return text + "B"
	}
	return text
}

func parsePids(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < -1 || n > mostPids {
		return 0, faultf("", "%q is not a number of processes", text)
	}
	return max(n, 0), nil
}

func parseWeight(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n != 0 && (n < leastWeight || n > mostWeight) {
		return 0, faultf(fmt.Sprintf("it goes from %d to %d", leastWeight, mostWeight), "%q is not a weight", text)
	}
	return uint16(n), nil
}

// parseRate reads "/dev/sda:10m", or "/dev/sda:0" for no limit.
func parseRate(text string, bytes bool) (cgroup.Rate, error) {
	device, amount, ok := strings.Cut(text, ":")
	if !ok || device == "" || amount == "" {
		return cgroup.Rate{}, faultf("write /dev/sda:RATE", "%q is not a device with a rate", text)
	}
	if amount == "0" {
		return cgroup.Rate{Device: device}, nil
	}
	n, err := int64(0), error(nil)
	if bytes {
		n, err = ParseSize(withBytes(amount))
	} else {
		n, err = parseCount(amount)
	}
	return cgroup.Rate{Device: device, Rate: uint64(n)}, err
}

// Empty tells whether nothing changes.
func (c LimitsChange) Empty() bool {
	return c.Memory == nil && c.MemoryReservation == nil && c.MemoryHigh == nil && c.MemorySwap == nil &&
		c.CPUs == nil && c.CPUReservation == nil && c.CPUShares == nil && c.CpusetCPUs == nil && c.CpusetMems == nil &&
		c.Pids == nil && c.IOWeight == nil && len(c.ReadBytes)+len(c.WriteBytes)+len(c.Reads)+len(c.Writes) == 0
}

// Apply gives the limits after the change, which must be possible together.
func (c LimitsChange) Apply(l cgroup.Limits) (cgroup.Limits, error) {
	put(&l.Memory, c.Memory)
	put(&l.MemoryReservation, c.MemoryReservation)
	put(&l.MemoryHigh, c.MemoryHigh)
	put(&l.CPUs, c.CPUs)
	put(&l.CPUReservation, c.CPUReservation)
	put(&l.CPUShares, c.CPUShares)
	put(&l.CpusetCPUs, c.CpusetCPUs)
	put(&l.CpusetMems, c.CpusetMems)
	put(&l.Pids, c.Pids)
	put(&l.IO.Weight, c.IOWeight)
	switch {
	case c.MemorySwap == nil && l.Memory == 0:
		l.Swap = min(l.Swap, 0)
	case c.MemorySwap == nil:
	case *c.MemorySwap < 0:
		l.Swap = -1
	case l.Memory == 0:
		return l, errors.New("swap without a limit of memory: it is what may be used beside that")
	case *c.MemorySwap < l.Memory:
		return l, fmt.Errorf("memory and swap together, %s, is less than the memory of %s", Size(*c.MemorySwap), Size(l.Memory))
	default:
		l.Swap = *c.MemorySwap - l.Memory
	}
	l.IO.ReadBytes, l.IO.WriteBytes = mergeRates(l.IO.ReadBytes, c.ReadBytes), mergeRates(l.IO.WriteBytes, c.WriteBytes)
	l.IO.Reads, l.IO.Writes = mergeRates(l.IO.Reads, c.Reads), mergeRates(l.IO.Writes, c.Writes)
	return l, l.Validate()
}

func put[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// mergeRates changes the rates of some devices.
func mergeRates(list, change []cgroup.Rate) []cgroup.Rate {
	var out []cgroup.Rate
	for _, r := range list {
		if rateOf(change, r.Device) == nil {
			out = append(out, r)
		}
	}
	for _, r := range change {
		if r.Rate != 0 {
			out = append(out, r)
		}
	}
	return out
}

func rateOf(list []cgroup.Rate, device string) *cgroup.Rate {
	for i := range list {
		if list[i].Device == device {
			return &list[i]
		}
	}
	return nil
}

// limitFlags reads the flags of a run that limit.
func (r *runner) limitFlags() {
	f := r.flags.Limits
	f.Memory, f.CPUs, f.Pids = r.flags.Memory, r.flags.CPUs, r.flags.PidsLimit
	c, err := f.Change()
	if err == nil {
		r.app.Limits, err = c.Apply(r.app.Limits)
	}
	if err != nil {
		r.errs = append(r.errs, err)
	}
	take(r, "--oom", r.flags.OOM, &r.app.OOM, parseOOM)
}
