package image

import (
	"fmt"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// maxReserve is the most that pulls leave free by default.
const maxReserve = 1 << 30

// reserveOf is how many bytes pulls leave free on a file system of total bytes,
// see Options.Reserve.
func reserveOf(option, total int64) int64 {
	switch {
	case option < 0:
		return 0
	case option > 0:
		return option
	}
	return min(total/20, maxReserve)
}

// diskState translates what the file system says.
func diskState(path string, st disk.Stat, reserve int64) DiskState {
	return DiskState{
		Path: path, Total: st.Total, Free: st.Free, Reserve: reserveOf(reserve, st.Total), Used: st.Percent(),
		Inodes: st.Inodes, InodesFree: st.InodesFree,
	}
}

// Disk reads how full the file system is.
func (s *Store) Disk() (DiskState, error) {
	st, err := s.statfs(s.root)
	if err != nil {
		return DiskState{}, fmt.Errorf("image store: %w", err)
	}
	return diskState(s.root, st, s.reserve), nil
}
