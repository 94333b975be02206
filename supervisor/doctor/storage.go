package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image"
)

// otherDisk is the remedy where the file system itself is unsuitable.
func (e *exam) otherDisk() string {
	return "put the root on ext4, XFS or btrfs of this machine: mkfs.ext4 /dev/DISK && mount /dev/DISK " + e.o.Root + " (and into /etc/fstab), or " + e.setting("root: /path/there")
}

// mounted names the options of a mount that matter, as mount(8) has them.
func mounted(flags int64) (bad []string) {
	for _, f := range []struct {
		flag int64
		name string
	}{{unix.ST_RDONLY, "ro"}, {unix.ST_NOEXEC, "noexec"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOSUID, "nosuid"}} {
		if flags&f.flag != 0 {
			bad = append(bad, f.name)
		}
	}
	return bad
}

// checkRoot looks at what the durable state stands on.
func checkRoot(_ context.Context, e *exam) finding {
	dir := e.dir(e.o.Root)
	fs, err := e.p.statfs(e.h.path(dir))
	if err != nil {
		return failed(err.Error(), e.otherDisk())
	}
	text := e.o.Root + " on " + fs.name
	if fs.name == "" {
		text = e.o.Root + " on a file system that is not known here"
	}
	flags := mounted(fs.flags)
	remount := "mount -o remount," + strings.NewReplacer("ro", "rw", "no", "").Replace(strings.Join(flags, ",")) + " $(findmnt -no TARGET -T " + dir + "), and in /etc/fstab"
	switch {
	case fs.flags&unix.ST_RDONLY != 0:
		return failed(text+" is mounted read-only", remount+"; dmesg | tail says whether the kernel did it because of errors")
	case fs.name == "tmpfs" || fs.name == "ramfs":
		return warning(text+": images and volumes are in memory and gone after a reboot", e.otherDisk())
	case fs.name == "nfs" || fs.name == "cifs" || fs.name == "9p" || fs.name == "fuse" || fs.name == "vfat" || fs.name == "exfat" || fs.name == "ceph":
		return failed(text+", which overlays and owners of files need to be another", e.otherDisk())
	case fs.name == "overlay":
		return warning(text+": it is a container's own, and most kernels lay no overlay over an overlay", "mount a volume of the host's at "+e.o.Root)
	case len(flags) > 0:
		return warning(fmt.Sprintf("%s is mounted %s, which volumes take over: programs or devices in them do not work", text, strings.Join(flags, ",")), remount)
	}
	if f := e.closedTo(dir); f != "" {
		return warning(fmt.Sprintf("%s; folder %s is closed to others: no user namespaces", text, f), "chmod o+x "+f)
	}
	return fine(text)
}

// closedTo is the first folder on the way that others cannot pass: root of a
// user namespace is nobody in particular there.
func (e *exam) closedTo(dir string) string {
	for {
		info, err := os.Stat(e.h.path(dir))
		if err == nil && info.Mode().Perm()&0o001 == 0 {
			return dir
		}
		if dir == "/" || dir == "." {
			return ""
		}
		dir = filepath.Dir(dir)
	}
}

// checkRunDir looks at the folder of sockets and run state.
func checkRunDir(_ context.Context, e *exam) finding {
	dir := e.dir(e.o.RunDir)
	fs, err := e.p.statfs(e.h.path(dir))
	if err != nil {
		return failed(err.Error(), e.setting("run_dir: /run/wherry"))
	}
	text := e.o.RunDir + " on " + fs.name
	d, err := e.p.disk(e.h.path(dir))
	switch {
	case fs.flags&unix.ST_RDONLY != 0:
		return failed(text+" is mounted read-only", "mount -o remount,rw "+dir)
	case err == nil && d.Total > 0 && d.Free < 4<<20:
		return failed(fmt.Sprintf("%s: %s free of %s: no run can start", text, size(d.Free), size(d.Total)), "mount -o remount,size=10% /run; du -xs /run/* | sort -n shows what is there")
	case fs.name != "tmpfs" && fs.name != "ramfs":
		remedy := e.setting("run_dir: /run/wherry")
		if strings.HasPrefix(e.o.RunDir, "/run/") { // so it is there already, and /run is what is wrong
			remedy = "echo 'tmpfs /run tmpfs mode=0755,nosuid,nodev 0 0' >>/etc/fstab && reboot"
		}
		return warning(text+", not on a tmpfs: secrets reach a disk, and a reboot leaves what it should end", remedy)
	}
	if f := e.closedTo(dir); f != "" {
		return warning(fmt.Sprintf("%s; folder %s is closed to others: no user namespaces", text, f), "chmod o+x "+f)
	}
	return fine(text)
}

func checkOverlay(_ context.Context, e *exam) finding {
	dir := e.dir(e.o.Root)
	err := e.p.overlay(dir)
	switch {
	case err == nil:
		return fine("an overlay below " + dir + " can be written to")
	case errors.Is(err, unix.ENODEV):
		return failed("the kernel has no overlays: "+err.Error(), load("overlay"))
	case errors.Is(err, image.ErrNoTypes):
		return failed(fmt.Sprintf("%s: %v: overlays cannot delete files there", dir, err), "mkfs.xfs -n ftype=1 /dev/DISK makes the file system anew, without its content; or "+e.otherDisk())
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return failed("not permitted: "+err.Error(), "run the daemon as root with CAP_SYS_ADMIN; in a container, run that with --privileged")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return failed(err.Error(), spaceRemedy)
	}
	return failed(fmt.Sprintf("%s takes no writable layers: %v", dir, err), e.otherDisk())
}

// checkEROFS: the better form of layers, not a need.
func checkEROFS(_ context.Context, e *exam) finding {
	dir := e.dir(e.o.Root)
	err := e.p.erofs(dir)
	form := e.o.Images.Form
	var major, minor int
	fmt.Sscanf(e.h.release, "%d.%d", &major, &minor)
	old := major < 6 || major == 6 && minor < 12
	switch {
	case err == nil && form == image.Folder:
		return fine("images can be mounted from files, but wherry.yaml says layers: folder")
	case err == nil:
		return fine("layers are single images, mounted from their files")
	case form == image.EROFS && !e.h.knows("erofs"):
		return failed("wherry.yaml says layers: erofs, and the kernel has none: "+err.Error(), load("erofs")+"; or "+e.setting("layers: auto"))
	case form == image.EROFS:
		return warning("layers go through loop devices: mounts of a file itself need Linux 6.12", e.setting("layers: auto"))
	case old:
		return fine("layers are folders: images mounted from files need Linux 6.12")
	case !e.h.knows("erofs"):
		return warning("layers are folders, which are slower to write and delete: the kernel has no EROFS", load("erofs")+"; then restart the daemon")
	}
	return fine("layers are folders: " + err.Error())
}

// knows tells whether the kernel has a file system, as a module that is loaded or built in.
func (h *host) knows(fs string) bool {
	for line := range strings.Lines(h.read("/proc/filesystems")) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == fs {
			return true
		}
	}
	return false
}

func checkIDMap(_ context.Context, e *exam) finding {
	dir := e.dir(e.o.Root)
	err := e.p.idmap(dir)
	if err == nil {
		return fine(dir + " can be mounted with shifted ids")
	}
	text := oneLine(err) + ": containers have no user namespace"
	if e.o.UserNS == "required" {
		return failed(text, e.otherDisk()+", or "+e.setting("defaults: {userns: auto}"))
	}
	return warning(text, e.otherDisk())
}

// checkQuota: without, only units that ask for a bound do not start.
func checkQuota(_ context.Context, e *exam) finding {
	dir := e.dir(e.o.Root)
	if err := e.p.quota(dir); err != nil {
		return fine("storage_opt: size cannot be used: " + oneLine(err))
	}
	return fine("writable layers below " + dir + " can be bounded")
}

func checkUserNS(_ context.Context, e *exam) finding {
	most, known := e.h.number("/proc/sys/user/max_user_namespaces")
	err := e.p.userns()
	verdict := warning
	if e.o.UserNS == "required" {
		verdict = failed
	}
	const key = "user.max_user_namespaces"
	switch {
	case known && most == 0:
		return verdict(key+" is 0: containers run without user namespaces", e.h.setSysctl(key, "63556"))
	case err != nil:
		return verdict("containers run without user namespaces: "+oneLine(err), e.h.choose("apt update && apt full-upgrade && reboot", "dnf upgrade && reboot"))
	case known && most < 256:
		return warning(fmt.Sprintf("%s is %d, which that many runs use up", key, most), e.h.setSysctl(key, "63556"))
	}
	if known {
		return fine(fmt.Sprintf("up to %d user namespaces", most))
	}
	return fine("user namespaces can be made")
}

const spaceRemedy = "wherry ctl image gc --all deletes images that nobody needs; wherry ctl image list -v shows what takes the space; du -xh / | sort -h | tail the rest"

func checkSpace(_ context.Context, e *exam) finding {
	d, err := e.p.disk(e.h.path(e.dir(e.o.Root)))
	if err != nil {
		return failed(err.Error(), e.otherDisk())
	}
	text := fmt.Sprintf("%s: %s free of %s, %.0f %% in use", e.o.Root, size(d.Free), size(d.Total), d.Used)
	switch {
	case d.Free < d.Reserve:
		return failed(fmt.Sprintf("%s: pulls leave %s free and are refused", text, size(d.Reserve)), spaceRemedy)
	case int(d.Used) >= e.o.High:
		return warning(fmt.Sprintf("%s, above %d %%: images are collected", text, e.o.High), spaceRemedy)
	}
	return fine(text)
}

func checkInodes(_ context.Context, e *exam) finding {
	d, err := e.p.disk(e.h.path(e.dir(e.o.Root)))
	if err != nil {
		return failed(err.Error(), e.otherDisk())
	}
	if d.Inodes == 0 {
		return fine("as many files as there is room for")
	}
	used := share(d.Inodes-d.InodesFree, d.Inodes)
	text := fmt.Sprintf("%s: %d of %d inodes free, %d %% in use", e.o.Root, d.InodesFree, d.Inodes, used)
	remedy := spaceRemedy + " (du --inodes); a file system has its number for ever: mkfs.ext4 -N NUMBER, or XFS, has more"
	switch {
	case d.InodesFree < min(d.Inodes/100, 10_000):
		return failed(text+": pulls are refused", remedy)
	case used >= int64(e.o.High):
		return warning(text, remedy)
	}
	return fine(text)
}
