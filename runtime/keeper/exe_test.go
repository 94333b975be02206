package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInitUndumpable: a process that becomes the init is closed to others of
// its kind before its first instruction, even to root with CAP_DAC_OVERRIDE.
func TestInitUndumpable(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
	exe, err := openInit(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(exe.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid == 0 {
		t.Skip("kernel or file system has no idmapped mounts")
	}
	if err := lookInto(fmt.Sprintf("/proc/self/fd/%d", exe.Fd())); !errors.Is(err, os.ErrPermission) {
		t.Errorf("descriptors of a process that becomes the init: %v, want a refusal", err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(plain, self, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := lookInto(plain); err != nil {
		t.Errorf("the test sees nothing: %v for another program", err)
	}
}

// lookInto lists the descriptors of a process that has just become the program
// at path, both with no capability but CAP_DAC_OVERRIDE, as a container's root.
func lookInto(path string) error {
	result := make(chan error)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread's powers go with it
		result <- func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_DAC_OVERRIDE, Permitted: 1 << unix.CAP_DAC_OVERRIDE}}
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				return err
			}
			if err := unix.Capset(&header, &data[0]); err != nil {
				return err
			}
			p, err := os.StartProcess(path, []string{"x"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
			if err != nil {
				return err
			}
			defer p.Wait()
			defer p.Kill()
			_, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Pid))
			return err
		}()
	}()
	return <-result
}
