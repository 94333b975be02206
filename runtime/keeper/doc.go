// Package keeper is the process that parents containers: it makes them with
// libcontainer, copies their output into log files, learns how they end, and
// remembers that until somebody takes note. It is the only importer of
// libcontainer, and of cgo.
//
// It does not decide whether a container should exist, does not restart
// anything, knows no images and no networks. Who talks to it is
// runtime.Runtime, over the protocol of runtime/internal/wire.
//
// Read [Main] first, then start.go and launch_process.go (the steps of a start), end.go (what is
// true about an end) and adopt.go (what a new keeper does with what it finds).
// init.c is the first process of every container.
//
// # Invariants
//
//   - What is known about a container stands in its state file before the
//     effect happens: Creating before anything is made, Running once the
//     program has been exec'd, Exited as soon as it has ended.
//   - Undo works from the state file alone ([Keeper.sweep]): a failed start,
//     a removal and what a crash left behind go through the same code.
//   - The root file system is mounted in a mount namespace that only the
//     starting thread and the container share. Nothing of a container is ever mounted in the
//     host's namespace, so nothing can be left there. What is mounted there are
//     the namespaces that the containers of a run share, and their /dev/shm (shared_pin.go);
//     a state file says so before, and the next keeper takes away what nobody needs.
//   - A user namespace comes first, so that it owns the others. Layers are
//     mounted with its ids, the writable one belongs to it, and what is not mapped stays nobody's.
//   - Ends are true: the init's record, else our own wait, else the kernel's
//     memory of it (PIDFD_GET_INFO), else Unknown. Never a guessed code.
//   - No thread is parked for a container: pidfds, pipes, event descriptors
//     and sockets all wait in Go's network poller.
//   - Every piece of output is in the log file before it leaves the pipe, unless
//     its unit would rather lose lines than wait for the disk (queue.go).
//
// # A keeper that dies
//
// Containers go on: they hold their output pipes open for reading and writing
// themselves, so they neither get SIGPIPE nor lose a byte until the pipe is
// full, then wait. The next keeper finds the state files and pipes, opens
// pidfds, compares start times, and carries on. What no file leads back to, such
// as a terminal's master, others hold duplicates of: see heirlooms.go. Processes that were
// exec'd are found by their records (execs.go), and a binary that fails at taking over gives
// way to the one before it (giveway.go). See bundle's doc for where everything lies.
//
// Built with the tag "faults" the keeper can be made to fail or die at every
// point that faults.go names; no other build can.
package keeper
