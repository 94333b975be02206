package runtime

import (
	"errors"
	"fmt"
	"os"

	"github.com/wherry-run/wherry/cgroup"
)

// Who makes the groups that runs stand under, see [Options.CgroupDriver].
const (
	DriverCgroupfs = "cgroupfs" // the keeper, below Options.CgroupParent
	DriverSystemd  = "systemd"  // systemd, as a scope for each run
)

// CheckCgroupDriver tells why this host has not got the driver.
func CheckCgroupDriver(driver string) error {
	switch driver {
	case "", DriverCgroupfs:
		return nil
	case DriverSystemd:
	default:
		return fmt.Errorf("cgroup driver %q: it is one of %s, %s", driver, DriverCgroupfs, DriverSystemd)
	}
	if st, err := os.Lstat("/run/systemd/system"); err != nil || !st.IsDir() { // as sd_booted(3)
		return errors.New("cgroup driver systemd: systemd is not PID 1 of this host: use cgroupfs")
	}
	if mode, err := cgroup.Detect(); err != nil {
		return fmt.Errorf("cgroup driver systemd: %w", err)
	} else if mode != cgroup.Unified {
		return errors.New("cgroup driver systemd: this host has cgroup v1: use cgroupfs, or boot with systemd.unified_cgroup_hierarchy=1")
	}
	return nil
}
