package keeper

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// asContainersWrite takes CAP_SYS_RESOURCE from the calling thread until restore.
// Overlayfs writes to its upper folder with the credentials of whoever mounted it
// (Documentation/filesystems/overlayfs.rst, "Permission model"), and with this
// capability the kernel neither enforces quotas (fs/quota/dquot.c, ignore_hardlimit)
// nor keeps the blocks that ext4 reserves for root. The caller holds the thread.
func asContainersWrite() (restore func(), err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		return nil, fmt.Errorf("capget: %w", err)
	}
	less := had
	less[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	if less == had {
		return func() {}, nil
	}
	if err := unix.Capset(&header, &less[0]); err != nil {
		return nil, fmt.Errorf("capset: %w", err)
	}
	return func() { _ = unix.Capset(&header, &had[0]) }, nil
}
