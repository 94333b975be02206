// Package nsthread answers one question: how does one piece of code run in
// another network namespace, or as somebody else, without the rest of the process
// noticing?
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
	return Spend(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// Spend runs fn on a thread that ends with it, and returns its error. Whatever fn makes
// of the thread is gone with it.
//
// It is never the process's first thread. That one cannot end before the process does:
// Go would put it to sleep for good, and with it whatever it has become. A network
// namespace would then be held until the end of the process, and /proc/PID would show it
// as the process's own.
func Spend(fn func() error) error {
	done := make(chan error, 1)
	go spend(fn, done)
	return <-done
}

func spend(fn func() error, done chan<- error) {
	// Not unlocked: the runtime ends the thread with the goroutine.
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		done <- fn()
		return
	}
	// While we hold the first thread, another goroutine gets another one.
	done <- Spend(fn)
	runtime.UnlockOSThread()
}
