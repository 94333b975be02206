// Package nsthread answers one question: how does one piece of code run in
// another network namespace without the rest of the process noticing?
//
// A namespace belongs to a thread, and Go moves goroutines between threads. So
// the function gets a thread of its own, which enters the namespace and ends
// with the function: it never goes back to the scheduler, and no failure to
// return home can leave a thread in the wrong namespace.
//
// What the function opens there (netlink sockets, listeners, files below
// /proc/sys/net) stays bound to the namespace and can be used from anywhere
// afterwards. Goroutines that the function starts do not run in the namespace.
package nsthread

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Net runs fn in the network namespace ns and returns its error. A nil ns is
// the namespace of the caller: then fn runs where it is.
func Net(ns *os.File, fn func() error) error {
	if ns == nil {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		defer close(done)
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}
