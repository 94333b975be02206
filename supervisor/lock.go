package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lock is held on a folder for as long as its file is open, so that it ends
// with the process, however that ends.
type lock struct{ file *os.File }

// lockFolder takes the lock of dir, or says who has it.
func lockFolder(dir string) (*lock, error) {
	path := filepath.Join(dir, "daemon.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	err = flock(f)
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close()
		who := ""
		if pid := owner(f); pid != 0 {
			who = fmt.Sprintf(" (pid %d)", pid)
		}
		return nil, fmt.Errorf("%s: %w%s", dir, ErrBusy, who)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// The pid is for people only; the lock is what counts.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &lock{f}, nil
}

// lockPatience is how long the lock of a process that is gone is waited for: a child that it
// was starting when it was killed has the file open until it executes its program.
const lockPatience = 5 * time.Second

func flock(f *os.File) error {
	for end := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || unix.Kill(owner(f), 0) != unix.ESRCH || time.Now().After(end) {
			return err
		}
	}
}

// owner is the pid in the file, 0 if there is none.
func owner(f *os.File) int {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// release does not leave the lock to a child of ours that has not executed its program yet.
func (l *lock) release() {
	if l != nil {
		_ = unix.Flock(int(l.file.Fd()), unix.LOCK_UN)
		l.file.Close()
	}
}
