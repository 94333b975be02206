// Package integration proves wherry on a real kernel with real parts: a real
// registry, images made of Debian packages, real processes, real nftables. It
// needs root and says why it skips. What a unit test can show does not stand
// here. The stories that need systemd or pure cgroup v2 run in the virtual
// machine of the folder vm.
package integration
