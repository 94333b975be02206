// Package cgroup answers: how much may this group use, how much does it use,
// and what happened to it?
//
// It knows control groups of both versions and hides their difference. It does
// not know what a container is and starts no process. It never writes outside
// the groups it is given, with one exception: where nothing was delegated,
// [Parent.Require] enables above them the controllers that a limit needs.
//
// Read first: [Group], [Limits], [Parent], [Watcher].
//
// # Invariants
//
//   - A [Group] is a path, not a handle: everything is read from the kernel each
//     time, so that nothing can be out of date after a restart.
//   - Zero means "no limit" and, in [Stats], "not known here", which is
//     the case where the host lacks the controller.
//   - Removing and killing what is not there is no error; reading it is.
//
// The reading of the files is our own and not containerd's cgroup1 and cgroup2,
// because the keeper's binary is executed again for every container start and
// their protocol buffers alone would add half a millisecond to each; the tests
// hold our numbers against theirs.
package cgroup
