package supervisor

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestLockOfTheDead: a lock that a child of a killed daemon still holds is waited for, but
// not for ever; that of a living one is not.
func TestLockOfTheDead(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		owner int
		free  time.Duration // when it is let go
		takes time.Duration
		ok    bool
	}{
		{"living", os.Getpid(), time.Second, 0, false},
		{"dead", gone.Process.Pid, time.Second, time.Second, true},
		{"dead, held by another", gone.Process.Pid, time.Hour, lockPatience, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			held, err := lockFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(held.file.Name(), []byte(strconv.Itoa(test.owner)), 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				time.AfterFunc(test.free, held.release)
				began := time.Now()
				l, err := lockFolder(dir)
				if took := time.Since(began).Round(100 * time.Millisecond); took != test.takes {
					t.Errorf("after %v, want %v", took, test.takes)
				}
				if ok := err == nil; ok != test.ok || !ok && !errors.Is(err, ErrBusy) {
					t.Errorf("error: %v", err)
				}
				l.release()
			})
			held.release()
		})
	}
}

// TestLockReleased: a child that is just being started has a copy of the descriptor.
func TestLockReleased(t *testing.T) {
	dir := t.TempDir()
	held, err := lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	child, err := unix.Dup(int(held.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	held.release()
	l, err := lockFolder(dir)
	if err != nil {
		t.Error(err)
	}
	l.release()
}
