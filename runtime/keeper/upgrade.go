package keeper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// checkDeadline is how long a new binary may take to prove itself.
const checkDeadline = 20 * time.Second

// upgrade replaces this process by another binary: same pid, same children,
// same socket and lock. It returns only if that did not happen; the clients
// see their connections end and connect again. Starts and the first moments of
// execs are waited for; processes that were exec'd go on, and whoever waits
// for one asks the new binary (execs.go).
func (d *daemon) upgrade(binary string) error {
	if !filepath.IsAbs(binary) {
		return fmt.Errorf("upgrade: %s: not an absolute path", binary)
	}
	if err := d.k.holdLaunches(); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	defer d.k.launching.Unlock()
	if err := d.prove(binary); err != nil {
		return fmt.Errorf("upgrade: %s: %w", binary, err)
	}
	listener, err := d.socket.File() // a duplicate: the accept loop goes on if the exec fails
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	defer listener.Close()
	args := append(d.args(binary),
		"--listener-fd", strconv.Itoa(int(listener.Fd())), "--lock-fd", strconv.Itoa(int(d.lockFile.Fd())))
	inherit := []uintptr{listener.Fd(), d.lockFile.Fd()}
	keepShared, err := d.k.bequeath()
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	for _, fd := range inherit {
		unix.FcntlInt(fd, unix.F_SETFD, 0)
	}
	list, keepHeirlooms, err := d.k.heirlooms.writeList()
	if err != nil {
		keepShared()
		return fmt.Errorf("upgrade: %w", err)
	}
	os.Setenv(envHeirlooms, strconv.Itoa(int(list.Fd())))
	self, err := former()
	if err == nil {
		defer self.Close()
		os.Setenv(envFormer, strconv.Itoa(int(self.Fd())))
	}
	d.k.heirlooms.store.flush(quitNotes)
	d.logger.Info("becoming another binary", "binary", binary)
	err = execve(binary, args)
	os.Unsetenv(envHeirlooms)
	os.Unsetenv(envFormer)
	keepHeirlooms()
	keepShared()
	for _, fd := range inherit {
		unix.CloseOnExec(int(fd))
	}
	return fmt.Errorf("upgrade: %s: %w", binary, err)
}

// launchPatience is how long an upgrade waits for starts and execs to get
// through.
const launchPatience = 10 * time.Second

// holdLaunches locks launching. Not by waiting in Lock, which would hold up all
// further starts: a container's root can stop a process that is being put into
// it, and so must not be able to stop everybody.
func (k *Keeper) holdLaunches() error {
	for deadline := time.Now().Add(launchPatience); !k.launching.TryLock(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("a start or an exec does not get through: %w", runtime.ErrBusy)
		}
	}
	return nil
}

func (d *daemon) args(binary string) []string {
	return []string{binary, "--root", d.root, "--run-dir", d.runDir, "--cgroup-parent", d.cgroupParent}
}

// execve leaves out the thread's signal mask and limits: the Go runtime takes
// care of both.
func execve(binary string, args []string) error { return unix.Exec(binary, args, os.Environ()) }

// prove lets the new binary show on the real state that it can take over.
func (d *daemon) prove(binary string) error {
	args := append(d.args(binary)[1:], "--check-handoff")
	cmd := exec.Command(binary, args...)
	timer := time.AfterFunc(checkDeadline, func() {
		if cmd.Process != nil {
			cmd.Process.Kill()
		}
	})
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot take over: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if !strings.Contains(string(out), handoffProof) {
		return errNoKeeper // such as /bin/true, which succeeds at everything
	}
	return nil
}

// handoffProof is what a keeper says once it has found that it can take over.
const handoffProof = "wherry-keeper can take over"

var errNoKeeper = errors.New("cannot take over: it is no wherry-keeper")

// shutdown ends the keeper if it has nothing to keep. Ended containers are
// remembered on disk.
func (d *daemon) shutdown() error {
	if err := d.k.unused(); err != nil { // the usual refusal, without waiting for anybody
		return err
	}
	if err := d.k.holdLaunches(); err != nil {
		return fmt.Errorf("stop keeper: %w", err)
	}
	defer d.k.launching.Unlock()
	if err := d.k.unused(); err != nil {
		return err
	}
	select {
	case <-d.stopped:
		return nil
	default:
	}
	d.k.clearShared()
	close(d.stopped)
	os.Remove(d.k.layout.Socket())
	time.AfterFunc(50*time.Millisecond, func() { d.socket.Close() }) // the answer goes out first
	return nil
}

// unused says whether nothing is left to keep.
func (k *Keeper) unused() error {
	for _, st := range k.list() {
		if st.State != runtime.Exited || !st.Drained {
			return fmt.Errorf("stop keeper: container %s is %s: %w", st.ID, st.State, runtime.ErrBusy)
		}
	}
	return nil
}
