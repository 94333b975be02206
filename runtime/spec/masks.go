package spec

import "fmt"

// maskedPaths are covered with nothing, because they tell of the host or its
// other tenants. Those that a kernel does not have are passed over.
// A privileged container sees all.
func maskedPaths(c Container) []string {
	if c.Privileged {
		return nil
	}
	paths := []string{
		"/proc/acpi",
		"/proc/asound",
		"/proc/interrupts", // keystroke timing: GHSA-6fw5-f8r9-fgfm
		"/proc/kcore",
		"/proc/keys",
		"/proc/latency_stats",
		"/proc/sched_debug",
		"/proc/scsi",
		"/proc/timer_list",
		"/proc/timer_stats",
		"/sys/devices/virtual/powercap", // power side channel: CVE-2020-8694
		"/sys/firmware",
	}
	for i := range c.Machine.CPUs { // the counterpart of /proc/interrupts
		paths = append(paths, fmt.Sprintf("/sys/devices/system/cpu/cpu%d/thermal_throttle", i))
	}
	return paths
}

// readonlyPaths could change the host, were they writable.
func readonlyPaths(c Container) []string {
	if c.Privileged {
		return nil
	}
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
