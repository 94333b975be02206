package nsthread

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func namespaceOfThread(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestFirstThreadStays: the process's first thread, which cannot end, enters no
// namespace, however often it is its turn. Before the other
// tests: were one of them to lose that thread, it could not have a turn here.
func TestFirstThreadStays(t *testing.T) {
	const many = 100
	var first atomic.Int32
	var all, there sync.WaitGroup
	there.Add(many)
	for range many {
		all.Go(func() {
			err := Spend(func() error {
				if unix.Gettid() == unix.Getpid() {
					first.Add(1)
				}
				there.Done()
				there.Wait() // each holds a thread, until all that are idle are taken
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if first.Load() != 0 {
		t.Error("ran on the first thread")
	}
}

func TestNet(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var other *os.File
	err = Net(home, func() (err error) { // a thread that is thrown away
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		other, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	before := namespaceOfThread(t)
	for range 100 {
		var inside string
		if err := Net(other, func() error { inside = namespaceOfThread(t); return nil }); err != nil {
			t.Fatal(err)
		}
		if inside == before {
			t.Fatal("ran in the caller's namespace")
		}
		if after := namespaceOfThread(t); after != before {
			t.Fatalf("the caller moved to %s", after)
		}
	}
}

func TestNetErrors(t *testing.T) {
	mine := errors.New("mine")
	if err := Net(nil, func() error { return mine }); err != mine {
		t.Errorf("got %v", err)
	}
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	called := false
	if err := Net(file, func() error { called = true; return nil }); err == nil || called {
		t.Errorf("entered /dev/null: %v, called %t", err, called)
	}
}

func TestSpendReturnsTheError(t *testing.T) {
	mine := errors.New("mine")
	if err := Spend(func() error { return mine }); err != mine {
		t.Errorf("got %v", err)
	}
}
