package keeper

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// load finds the one container that a command without flags of its own is about.
func (o *oci) load(command string, args []string) (*libcontainer.Container, error) {
	words, err := ociParse(newOCIFlags(command), args, false, 1, 1)
	if err != nil {
		return nil, err
	}
	return o.find(words[0])
}

func (o *oci) find(id string) (*libcontainer.Container, error) {
	if filepath.Base(id) != id || id == "." || id == ".." {
		return nil, fmt.Errorf("container %s: %w", id, libcontainer.ErrInvalidID)
	}
	lc, err := libcontainer.Load(o.root, id)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	return lc, nil
}

func (o *oci) start(args []string) error {
	lc, err := o.load("start", args)
	if err != nil {
		return err
	}
	switch st, err := lc.Status(); {
	case err != nil:
		return err
	case st == libcontainer.Running:
		return errors.New("cannot start an already running container")
	case st == libcontainer.Stopped:
		return errors.New("cannot start a container that has stopped")
	case st != libcontainer.Created:
		return fmt.Errorf("cannot start a container in the %s state", st)
	}
	n := newNotifyRelay(o, lc.ID())
	if err := n.bind(); err != nil {
		return err
	}
	if err := lc.Exec(); err != nil {
		return fmt.Errorf("start %s: %w", lc.ID(), err)
	}
	state, err := lc.State()
	if err != nil {
		return err
	}
	return n.relay(state.InitProcessPid, state.InitProcessPid)
}

func (o *oci) kill(args []string) error {
	fs := newOCIFlags("kill")
	var all bool
	ociAlias(fs, &all, "every process, also of a container that has ended", "all", "a")
	words, err := ociParse(fs, args, false, 1, 2)
	if err != nil {
		return err
	}
	lc, err := o.find(words[0])
	if err != nil {
		return err
	}
	sig := unix.SIGTERM
	if len(words) > 1 {
		if sig, err = parseOCISignal(words[1]); err != nil {
			return err
		}
	}
	err = lc.Signal(sig)
	if all && errors.Is(err, libcontainer.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill %s: %w", lc.ID(), err)
	}
	return nil
}

// parseOCISignal knows 9, KILL, SIGKILL and sigkill.
func parseOCISignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}

func (o *oci) delete(args []string) error {
	fs := newOCIFlags("delete")
	var force bool
	ociAlias(fs, &force, "kill it first, and be content if there is none", "force", "f")
	words, err := ociParse(fs, args, false, 1, 1)
	if err != nil {
		return err
	}
	id := words[0]
	lc, err := o.find(id)
	if errors.Is(err, libcontainer.ErrNotExist) {
		if serr := o.sweepAborted(id); force || serr != nil {
			return serr
		}
	}
	if err != nil {
		return err
	}
	st, err := lc.Status()
	switch {
	case err != nil && !force:
		return err
	case force || st == libcontainer.Created:
		err = endAndDestroy(lc)
	case st == libcontainer.Stopped:
		err = destroyOCI(lc)
	default:
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, st)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	return nil
}

// endAndDestroy also kills what is left in the group of a container that has ended:
// without a PID namespace of its own, that may be something.
func endAndDestroy(lc *libcontainer.Container) error {
	lc.Signal(unix.SIGKILL)
	pause := time.Millisecond
	for deadline := time.Now().Add(groupDeadline); time.Now().Before(deadline); time.Sleep(pause) {
		if err := lc.Signal(unix.Signal(0)); err != nil {
			return destroyOCI(lc)
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
	return errors.New("its first process does not end")
}

func (o *oci) pause(args []string) error {
	lc, err := o.load("pause", args)
	if err != nil {
		return err
	}
	return lc.Pause()
}

func (o *oci) resume(args []string) error {
	lc, err := o.load("resume", args)
	if err != nil {
		return err
	}
	return lc.Resume()
}
