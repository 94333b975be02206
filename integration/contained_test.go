package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// contained runs h's daemon as process 1 of namespaces of its own, as in a container without an init, and gives its pid as
// we see it. end kills it, and so the kernel all that runs there. The daemon gets the files, which it does not know about.
func contained(t *testing.T, h *harness.Host, files []*os.File, namespaces ...string) (daemon int, end func()) {
	t.Helper()
	args := append([]string{"--mount", "--pid", "--fork", "--mount-proc", "--ipc", "--uts"}, namespaces...)
	config := filepath.Join(h.Dir, "wherry.yaml")
	args = append(append(args, "--", h.Bin+"/wherry", "daemon", "--config", config), h.Flags()...)
	log, err := os.OpenFile(h.Dir+"/daemon.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		defer log.Close()
		err = os.WriteFile(config, nil, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", args...)
	c.Stdout, c.Stderr, c.ExtraFiles = log, log, files
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		first := children(c.Process.Pid)
		for _, pid := range first {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(first) == 0 { // it never came so far, or hangs before
			c.Process.Kill()
		}
		c.Wait()
	}
	t.Cleanup(end)
	harness.Eventually(t, 30*time.Second, "the daemon answers", func() bool { return h.Run("status").Code == 0 })
	all := children(c.Process.Pid)
	if len(all) != 1 {
		t.Fatalf("children of unshare: %v\n%s", all, h.DaemonLog())
	}
	return all[0], end
}

// children are those of a process's main thread.
func children(pid int) (pids []int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// keeperBelow finds the keeper among a daemon's children, whichever of its threads has started it.
func keeperBelow(t *testing.T, daemon int) (pid int) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, "a keeper runs", func() bool {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", daemon))
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for _, word := range strings.Fields(string(text)) {
				exe, _ := os.Readlink("/proc/" + word + "/exe") // none of one that has ended
				if filepath.Base(exe) == "wherry-keeper" {
					pid, _ = strconv.Atoi(word)
					args, _ := os.ReadFile("/proc/" + word + "/cmdline")
					return strings.Contains(string(args), "--run-dir") // and not what it executes for a container
				}
			}
		}
		return false
	})
	return pid
}

// unreaped are the children of a process that have ended.
func unreaped(daemon int) (names []string) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", daemon))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(text)) {
			if stat, _ := os.ReadFile("/proc/" + word + "/stat"); strings.Contains(string(stat), ") Z ") {
				names = append(names, string(stat))
			}
		}
	}
	return names
}

// TestContained: the daemon in a container of somebody else's, without an init and without a service manager: containers run with network
// and limits, who calls from outside is known, a killed keeper is replaced, orphans are reaped. When the container ends and is started again, on
// the same folders, so are the units.
func TestContained(t *testing.T) {
	r := registry(t)
	h := harness.NewHost(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	daemon, end := contained(t, h, []*os.File{write})
	write.Close()
	counter(h, r)
	h.Apply("web", fmt.Sprintf("image: %s\ncommand: [sleep, \"1000\"]\nports: [\"127.0.0.1:18093:80\"]\nresources: {limits: {memory: 32MiB, pids: 10}}\n", r.Ref("busybox")))
	if out := h.OK("run", "--rm", r.Ref("busybox"), "echo", "hi"); out != "hi\n" {
		t.Errorf("run: %q", out)
	}
	execs(t, h)
	n := growsBeyond(t, h, 5)
	count := h.Running("count", 1)

	// What the daemon has inherited by mistake is not the keeper's: when the daemon has ended, nobody holds it.
	keeper := keeperBelow(t, daemon)
	inherited, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", read.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	held, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", keeper))
	for _, fd := range held {
		if to, _ := os.Readlink(fd); to == inherited {
			t.Errorf("the keeper holds what its daemon was started with: %s", fd)
		}
	}
	if len(held) == 0 {
		t.Errorf("keeper %d has no descriptors", keeper)
	}

	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 30*time.Second, "another keeper", func() bool { return keeperBelow(t, daemon) != keeper })
	undisturbed(t, h, "count", count)
	growsBeyond(t, h, n+20)
	execs(t, h)
	h.OK("rm", "-f", "count") // its processes are the daemon's children now
	harness.Eventually(t, 60*time.Second, "nothing is left unreaped", func() bool { return len(unreaped(daemon)) == 0 })

	first := h.Running("web", 1)
	end()
	contained(t, h, nil, "--cgroup")
	harness.Eventually(t, 60*time.Second, "web runs again", func() bool {
		in := h.Running("web", 1)
		return in.Run != first.Run && h.Run("exec", "web", "true").Code == 0
	})
	if log, _ := os.ReadFile(h.RunDir + "/keeper.log"); strings.Contains(string(log), "panic") {
		t.Errorf("the keeper has crashed:\n%s", log)
	}
	h.OK("rm", "-f", "web")
}
