// Package spec answers: what must the kernel be asked for, so that this image
// runs as this unit wants it?
//
// It combines an image's config with a unit's wishes into an OCI runtime spec,
// with Docker's defaults. It is pure: it reads no file, no environment and no
// kernel, so that the same input gives the same spec on every host. What only a
// host or a root file system can tell (user names, a namespace's path, the
// cgroup's path, whether a limit or a capability can be had at all) is the
// keeper's to fill in or to take out.
//
// Read first: [Image], [Container], [Build].
//
// # Security
//
// Defaults are closed and stand in one file per topic: caps.go, seccomp.go,
// masks.go, devices.go, namespaces.go, mounts.go. No new privileges can be
// gained, the file systems of the kernel are read-only, and what tells of the
// host is masked.
//
// # What is not set
//
//   - Resource limits of processes (rlimits): a container has what the keeper
//     has. Asking for more fails on hosts where the keeper lacks
//     CAP_SYS_RESOURCE.
//   - oom_score_adj, for the same reason.
//   - HOME and the user's ids: they stand in the image's /etc/passwd.
package spec
