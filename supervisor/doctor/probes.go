package doctor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/runtime/usernamespace"
)

// probes is what is asked of the kernel and of others, not read from files.
type probes struct {
	overlay, erofs, quota, idmap func(dir string) error
	userns, nftables, inotify    func() error
	network                      func() (network.Diagnosis, error)
	statfs                       func(dir string) (fileSystem, error)
	disk                         func(dir string) (image.DiskState, error)
	mode                         func() (cgroup.Mode, error)
	delegation                   func() (cgroup.Delegation, error)
	limits                       func(cgroup.Limits) error
	clock                        func() (clockState, error)
	keeper                       func(context.Context) (runtime.KeeperState, error)
	services                     func(context.Context) (map[string]service, error)
	login                        func(ctx context.Context, host string) (image.Login, []string, error)
}

// fileSystem is of which kind one is, and how it is mounted.
type fileSystem struct {
	name  string // empty: unknown
	flags int64  // unix.ST_*
}

// clockState is what the kernel thinks of its clock.
type clockState struct {
	synced bool
	error  int64 // its own estimate, microseconds
}

// service is a unit of systemd.
type service struct {
	load, active, file string // LoadState, ActiveState, UnitFileState
	restarts           string
	stale              bool // its file has changed since systemd read it
}

func realProbes(o Options) *probes {
	parent := cgroup.Parent{Path: filepath.Join("/", o.CgroupParent)}
	return &probes{
		overlay:  image.ProbeOverlay,
		erofs:    image.ProbeEROFS,
		quota:    image.ProbeQuota,
		idmap:    func(dir string) error { return usernamespace.Probe(dir, false) },
		userns:   usernamespace.Kernel,
		nftables: network.ProbeKernel,
		inotify:  probeInotify,
		network: func() (network.Diagnosis, error) {
			return network.Diagnose(network.Options{Bridge: o.Bridge, Subnet: o.Subnet, Dir: filepath.Join(real(o.RunDir), "network")})
		},
		statfs:     readFileSystem,
		disk:       func(dir string) (image.DiskState, error) { return image.DiskOf(dir, o.Images.Reserve) },
		mode:       cgroup.Detect,
		delegation: parent.Delegation,
		limits:     parent.Check,
		clock:      readClock,
		keeper: func(ctx context.Context) (runtime.KeeperState, error) {
			return runtime.AskKeeper(ctx, runtime.Options{Root: o.Root, RunDir: real(o.RunDir), Keeper: o.Keeper})
		},
		services: showServices,
		login: func(ctx context.Context, host string) (image.Login, []string, error) {
			images, open := o.Images, &openFiles{}
			images.Logger = open.logger()
			l, err := images.Login(ctx, host, o.AskRegistries)
			return l, open.list(), err
		},
	}
}

// real is the path without symbolic links, as the daemon takes it.
func real(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return path
}

func probeInotify() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.F2FS_SUPER_MAGIC: "f2fs", 0x2fc12fc1: "zfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs", 0xff534d42: "cifs",
	unix.SMB2_SUPER_MAGIC: "cifs", unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p", unix.CEPH_SUPER_MAGIC: "ceph", unix.MSDOS_SUPER_MAGIC: "vfat",
	unix.EXFAT_SUPER_MAGIC: "exfat", unix.ECRYPTFS_SUPER_MAGIC: "ecryptfs", 0xca451a4e: "bcachefs",
}

func readFileSystem(dir string) (fileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fileSystem{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return fileSystem{fileSystems[int64(st.Type)], int64(st.Flags)}, nil
}

// readClock asks as adjtimex(2) has it; nothing is set.
func readClock() (clockState, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return clockState{synced: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, error: t.Esterror}, err
}

var serviceNames = []string{"wherry.service", "wherry.socket", "wherry-keeper.service", "wherry-cargo.service", "wherry-shutdown.service"}

// showServices asks systemd by its own command: it answers whoever asks, root or not.
func showServices(ctx context.Context) (map[string]service, error) {
	args := append([]string{"show", "-p", "Id,LoadState,ActiveState,UnitFileState,NRestarts,NeedDaemonReload"}, serviceNames...)
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("systemctl show: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return parseServices(out.String()), nil
}

func parseServices(text string) map[string]service {
	all := map[string]service{}
	for block := range strings.SplitSeq(text, "\n\n") {
		var s service
		var id string
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch key {
			case "Id":
				id = value
			case "LoadState":
				s.load = value
			case "ActiveState":
				s.active = value
			case "UnitFileState":
				s.file = value
			case "NRestarts":
				s.restarts = value
			case "NeedDaemonReload":
				s.stale = value == "yes"
			}
		}
		if id != "" {
			all[id] = s
		}
	}
	return all
}
