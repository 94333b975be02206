// Package harness gives integration tests a host to play with: the built
// binaries, a root and run folder of their own, a daemon, a real registry with
// real images, and a check that nothing is left behind.
//
// Everything a Host makes carries its own prefix: folders under one temporary
// folder, a bridge, a cgroup parent, a socket. Only processes that the harness
// started, or that the daemon says are its own, are ever signalled, by pid.
package harness
