package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// holding is a holder that waits to hear that somebody knows of it. Without
// holder it does nothing.
type holding struct {
	proc *process
	go_  *os.File
}

// release lets the holder stay.
func (h *holding) release() error {
	if h.go_ == nil {
		return nil
	}
	_, err := h.go_.Write([]byte("g"))
	return err
}

// close without a release before ends the holder.
func (h *holding) close() {
	if h.go_ != nil {
		h.go_.Close()
	}
}

// make makes the namespaces. What needs a process in them gets one: a holder,
// which stays, or else a child that is ended before its first instruction.
func (s *shared) make(exe *os.File) (*holding, error) {
	s.files = map[string]*os.File{}
	var h holding
	var err error
	switch {
	case s.st.PID:
		err = s.startHolder(exe, &h)
	case s.st.IDMap != nil:
		err = s.visit()
	default:
		err = s.unshare()
	}
	if err == nil && s.st.UTS && s.st.Hostname != "" && s.st.IDMap == nil && !s.st.PID {
		return &h, nil // unshare has set it
	}
	if err == nil && s.st.UTS && s.st.Hostname != "" {
		err = s.setHostname()
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return &h, nil
}

// collect opens the namespaces of the process or thread in folder.
func (s *shared) collect(folder string) error {
	for _, name := range kindsOf(&s.st.Namespaces) {
		f, err := os.Open(folder + "/ns/" + name)
		if err != nil {
			return err
		}
		s.files[name] = f
	}
	return nil
}

// unshare makes them on a thread that ends with that: the cheapest way.
func (s *shared) unshare() error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked
		if err := unix.Unshare(int(flagsOf(kindsOf(&s.st.Namespaces)))); err != nil {
			done <- fmt.Errorf("unshare: %w", err)
			return
		}
		if s.st.UTS && s.st.Hostname != "" {
			if err := unix.Sethostname([]byte(s.st.Hostname)); err != nil {
				done <- fmt.Errorf("host name: %w", err)
				return
			}
		}
		done <- s.collect("/proc/thread-self")
	}()
	return <-done
}

func (s *shared) setHostname() error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked
		err := unix.Setns(int(s.files["uts"].Fd()), unix.CLONE_NEWUTS)
		if err == nil {
			err = unix.Sethostname([]byte(s.st.Hostname))
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	return nil
}

// cloneAttr has a child begin in the new namespaces. The kernel makes the user
// namespace first, so that the others belong to it.
func (s *shared) cloneAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: flagsOf(kindsOf(&s.st.Namespaces))}
	if m := s.st.IDMap; m != nil {
		ids := []syscall.SysProcIDMap{{HostID: int(m.HostID), Size: int(m.Size)}}
		attr.UidMappings, attr.GidMappings = ids, ids
		attr.GidMappingsEnableSetgroups = true // or no program inside could change its user
	}
	return attr
}

// visit makes them with a child that never runs: it is stopped when it would
// begin, and killed.
func (s *shared) visit() error {
	goruntime.LockOSThread() // a traced child belongs to the thread
	defer goruntime.UnlockOSThread()
	attr := s.cloneAttr()
	attr.Ptrace, attr.Pdeathsig = true, unix.SIGKILL
	child, err := os.StartProcess("/proc/self/exe", []string{"wherry-keeper"}, &os.ProcAttr{Env: []string{}, Sys: attr})
	if err != nil {
		return explainClone(err)
	}
	err = s.collect(fmt.Sprintf("/proc/%d", child.Pid))
	child.Kill()
	go child.Wait() // its end takes the kernel a while
	return err
}

// startHolder makes them with a holder, and waits until it can be left alone with containers.
func (s *shared) startHolder(exe *os.File, h *holding) error {
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer goRead.Close()
	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		goWrite.Close()
		return err
	}
	defer readyRead.Close()
	h.go_ = goWrite
	attr := s.cloneAttr()
	attr.Cloneflags |= unix.CLONE_NEWNS
	if s.st.IDMap != nil {
		attr.Credential = &syscall.Credential{}
	}
	child, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), []string{holderName, holderName},
		&os.ProcAttr{Env: []string{}, Files: []*os.File{goRead, readyWrite}, Sys: attr})
	readyWrite.Close()
	if err != nil {
		return explainClone(err)
	}
	if h.proc, err = openProcess(child.Pid); err != nil {
		return err
	}
	child.Release()
	var ready [1]byte
	_, err = io.ReadFull(readyRead, ready[:])
	if err == nil {
		err = s.collect(fmt.Sprintf("/proc/%d", h.proc.pid))
	}
	if err == nil {
		return nil
	}
	h.proc.signal(unix.SIGKILL)
	reapHolder(h.proc)
	h.proc.close()
	h.proc = nil
	if errors.Is(err, io.EOF) {
		err = errors.New("it ended at once")
	}
	return fmt.Errorf("holder: %w", err)
}

// holderName is HOLDER of holder.c.
const holderName = "wherry-holder"

// explainClone says what the kernel means.
func explainClone(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return fmt.Errorf("clone: %w (see /proc/sys/user/max_*_namespaces)", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("clone: %w (user namespaces may be forbidden here, or the ids are not the keeper's to give)", err)
	}
	return fmt.Errorf("clone: %w", err)
}

// hostID is the host's id for id inside; no map changes nothing.
func hostID(m *runtime.IDMap, id int) int {
	if m == nil || id < 0 || uint64(id) >= uint64(m.Size) {
		return id
	}
	return int(m.HostID) + id
}

// ownID is the id inside for the host's; what the map does not know stays as it is.
func ownID(m *runtime.IDMap, id uint32) uint32 {
	if m == nil || id < m.HostID || id-m.HostID >= m.Size {
		return id
	}
	return id - m.HostID
}
