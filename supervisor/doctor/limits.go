package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What one container takes of descriptors in daemon and keeper.
const filesOfContainer = 6

// checkFiles looks at the descriptors that keeper and daemon may open, and at
// those of the host.
func checkFiles(_ context.Context, e *exam) finding {
	var used, free, most int64
	if _, err := fmt.Sscan(e.h.read("/proc/sys/fs/file-nr"), &used, &free, &most); err == nil && most > 0 && share(used, most) >= 90 {
		return failed(fmt.Sprintf("%d of %d open files of the host are in use", used, most), e.h.setSysctl("fs.file-max", strconv.FormatInt(2*most, 10)))
	}
	pids := map[string]int{}
	if k, err := e.keeper(); err == nil {
		pids["wherry-keeper"] = k.Pid
	}
	if i, err := e.info(); err == nil {
		pids["wherry"] = i.Pid
	}
	text := "neither daemon nor keeper runs"
	for _, who := range []string{"wherry-keeper", "wherry"} {
		pid, ok := pids[who]
		if !ok {
			continue
		}
		n, ok := e.h.openFiles(pid)
		if !ok {
			return skip(fmt.Sprintf("/proc/%d/limits cannot be read", pid))
		}
		if n < 100*filesOfContainer*2 {
			return failed(fmt.Sprintf("%s may open %d files, enough for some %d containers", who, n, n/filesOfContainer), e.moreFiles(who))
		}
		if n < 16384 {
			return warning(fmt.Sprintf("%s may open %d files, enough for some %d containers", who, n, n/filesOfContainer), e.moreFiles(who))
		}
		text = fmt.Sprintf("%s may open %d files", who, n)
	}
	return fine(text)
}

func (e *exam) moreFiles(who string) string {
	if e.h.systemd() {
		return fmt.Sprintf(`printf '[Service]\nLimitNOFILE=1048576\n' | systemctl edit --stdin %[1]s.service && systemctl restart %[1]s.service`, who)
	}
	return "ulimit -n 1048576 before the daemon starts"
}

// openFiles is a process's soft limit.
func (h *host) openFiles(pid int) (int64, bool) {
	for line := range strings.Lines(h.read(fmt.Sprintf("/proc/%d/limits", pid))) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		if len(f) == 0 {
			return 0, false
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		if f[0] == "unlimited" {
			return 1 << 30, true
		}
		return n, err == nil
	}
	return 0, false
}

// checkInotify: the keeper has one instance, programs in containers have many.
func checkInotify(_ context.Context, e *exam) finding {
	const instances, watches = "fs.inotify.max_user_instances", "fs.inotify.max_user_watches"
	ni, ok := e.h.number("/proc/sys/fs/inotify/max_user_instances")
	nw, _ := e.h.number("/proc/sys/fs/inotify/max_user_watches")
	err := e.p.inotify()
	text := fmt.Sprintf("%d instances and %d watches for each user", ni, nw)
	switch {
	case errors.Is(err, unix.EMFILE):
		return failed(text+", and ours are used up: no memory events, unit files are read late", e.h.setSysctl(instances, "1024"))
	case err != nil:
		return warning("inotify: "+err.Error(), "boot a kernel with CONFIG_INOTIFY_USER")
	case !ok:
		return fine("inotify works")
	case ni < 128:
		return warning(text, e.h.setSysctl(instances, "1024"))
	case nw < 8192:
		return warning(text, e.h.setSysctl(watches, "524288"))
	}
	return fine(text)
}

// used is a count against its bound.
func (e *exam) used(what string, n, most int64, key, then string) finding {
	text := fmt.Sprintf("%d of %d %s", n, most, what)
	remedy := e.h.setSysctl(key, strconv.FormatInt(max(4*most, 65536), 10))
	switch p := share(n, most); {
	case p >= 95:
		return failed(text+": "+then, remedy)
	case p >= 75:
		return warning(fmt.Sprintf("%s, %d %%", text, p), remedy)
	}
	return fine(text)
}

func checkTasks(_ context.Context, e *exam) finding {
	f := strings.Fields(e.h.read("/proc/loadavg"))
	if len(f) < 4 {
		return skip("/proc/loadavg cannot be read")
	}
	_, all, _ := strings.Cut(f[3], "/")
	n, err := strconv.ParseInt(all, 10, 64)
	pids, ok := e.h.number("/proc/sys/kernel/pid_max")
	threads, ok2 := e.h.number("/proc/sys/kernel/threads-max")
	if err != nil || !ok || !ok2 {
		return skip("the numbers of tasks cannot be read")
	}
	key := "kernel.pid_max"
	if threads < pids {
		key = "kernel.threads-max"
	}
	return e.used("processes and threads", n, min(pids, threads), key, "no process can be started any more")
}

func checkMounts(_ context.Context, e *exam) finding {
	most, ok := e.h.number("/proc/sys/fs/mount-max")
	if !ok {
		return skip("/proc/sys/fs/mount-max cannot be read")
	}
	n := int64(strings.Count(e.h.raw("/proc/self/mountinfo"), "\n"))
	return e.used("mounts", n, most, "fs.mount-max", "no container can be started any more")
}

func checkConntrack(_ context.Context, e *exam) finding {
	most, ok := e.h.number("/proc/sys/net/netfilter/nf_conntrack_max")
	n, ok2 := e.h.number("/proc/sys/net/netfilter/nf_conntrack_count")
	if !ok || !ok2 {
		return fine("no connections are tracked yet")
	}
	return e.used("tracked connections", n, most, "net.netfilter.nf_conntrack_max", "new connections are dropped")
}

func checkMemory(_ context.Context, e *exam) finding {
	value := map[string]int64{}
	for line := range strings.Lines(e.h.read("/proc/meminfo")) {
		key, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); len(f) > 0 {
			value[key], _ = strconv.ParseInt(f[0], 10, 64)
		}
	}
	total, free := value["MemTotal"]<<10, value["MemAvailable"]<<10
	if total == 0 {
		return skip("/proc/meminfo cannot be read")
	}
	text := fmt.Sprintf("%s available of %s", size(free), size(total))
	if share(free, total) < 5 || free < 64<<20 {
		return warning(text+": the kernel may kill for memory", "wherry ctl stats shows what containers use; give units resources: {limits: {memory: 512MiB}}")
	}
	return fine(text)
}
