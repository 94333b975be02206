package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IO is how much a group may read from and write to block devices.
type IO struct {
	Weight     uint16 `json:"weight,omitempty"` // 10 to 1000, its share of a contended device; needs the scheduler BFQ, or iocost
	ReadBytes  []Rate `json:"read_bytes,omitempty"`
	WriteBytes []Rate `json:"write_bytes,omitempty"`
	Reads      []Rate `json:"reads,omitempty"`
	Writes     []Rate `json:"writes,omitempty"`
}

// Rate is how much a second goes to or from a device.
type Rate struct {
	Device string `json:"device"` // "/dev/vda", or its numbers "254:0", see [IO.Resolve]
	Rate   uint64 `json:"rate"`   // a second
}

const minIOWeight, maxIOWeight = 10, 1000

// rates are the four lists, each with its words: the unit file's, v2's in
// io.max and v1's file.
func (i IO) rates() []rateList {
	return []rateList{
		{"device_read_bps", "rbps", "blkio.throttle.read_bps_device", i.ReadBytes},
		{"device_write_bps", "wbps", "blkio.throttle.write_bps_device", i.WriteBytes},
		{"device_read_iops", "riops", "blkio.throttle.read_iops_device", i.Reads},
		{"device_write_iops", "wiops", "blkio.throttle.write_iops_device", i.Writes},
	}
}

type rateList struct {
	key, v2, v1 string
	list        []Rate
}

func (i IO) equal(o IO) bool {
	return i.Weight == o.Weight && slices.Equal(i.ReadBytes, o.ReadBytes) && slices.Equal(i.WriteBytes, o.WriteBytes) &&
		slices.Equal(i.Reads, o.Reads) && slices.Equal(i.Writes, o.Writes)
}

// throttled tells whether a device is limited.
func (i IO) throttled() bool {
	return len(i.ReadBytes)+len(i.WriteBytes)+len(i.Reads)+len(i.Writes) > 0
}

func (i IO) validate() error {
	if i.Weight != 0 && (i.Weight < minIOWeight || i.Weight > maxIOWeight) {
		return fmt.Errorf("blkio_config weight: %d is not between %d and %d", i.Weight, minIOWeight, maxIOWeight)
	}
	for _, r := range i.rates() {
		seen := map[string]bool{}
		for _, d := range r.list {
			_, numbers := parseDevice(d.Device)
			switch {
			case !filepath.IsAbs(d.Device) && !numbers:
				return fmt.Errorf("blkio_config %s: %q is not the path of a device", r.key, d.Device)
			case d.Rate == 0:
				return fmt.Errorf("blkio_config %s: %s: a rate of 0 would stop it", r.key, d.Device)
			case seen[d.Device]:
				return fmt.Errorf("blkio_config %s: %s is there twice", r.key, d.Device)
			}
			seen[d.Device] = true
		}
	}
	return nil
}

// parseDevice reads "254:0".
func parseDevice(text string) ([2]int64, bool) {
	major, minor, ok := strings.Cut(text, ":")
	a, err1 := strconv.ParseInt(major, 10, 32)
	b, err2 := strconv.ParseInt(minor, 10, 32)
	return [2]int64{a, b}, ok && err1 == nil && err2 == nil && a >= 0 && b >= 0
}

// Resolve replaces the devices' paths by the numbers of the whole disk that
// each is, or is a part of: the kernel limits disks and not partitions.
func (l Limits) Resolve() (Limits, error) { return l.resolve("/sys") }

func (l Limits) resolve(sys string) (Limits, error) {
	for _, to := range []struct {
		key  string
		list *[]Rate
	}{
		{"device_read_bps", &l.IO.ReadBytes}, {"device_write_bps", &l.IO.WriteBytes},
		{"device_read_iops", &l.IO.Reads}, {"device_write_iops", &l.IO.Writes},
	} {
		list := slices.Clone(*to.list)
		for n := range list {
			numbers, err := diskOf(sys, list[n].Device)
			if err != nil {
				return l, fmt.Errorf("blkio_config %s: %w", to.key, err)
			}
			if slices.ContainsFunc(list[:n], func(r Rate) bool { return r.Device == numbers }) {
				return l, fmt.Errorf("blkio_config %s: %s is on a disk that is there twice", to.key, list[n].Device)
			}
			list[n].Device = numbers
		}
		*to.list = list
	}
	return l, nil
}

// diskOf are the numbers of the whole disk of a device, "254:0".
func diskOf(sys, device string) (string, error) {
	numbers := device
	if _, ok := parseDevice(device); !ok {
		var st unix.Stat_t
		if err := unix.Stat(device, &st); err != nil {
			return "", fmt.Errorf("%s: %w", device, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return "", fmt.Errorf("%s is not a block device", device)
		}
		numbers = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	dir := filepath.Join(sys, "dev/block", numbers)
	if _, err := os.Stat(filepath.Join(dir, "partition")); err != nil {
		return numbers, nil
	}
	// A partition's folder stands below its disk's.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("%s: %w", device, err)
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(real), "dev"))
	if err != nil {
		return "", fmt.Errorf("%s: its disk: %w", device, err)
	}
	return strings.TrimSpace(string(b)), nil
}
