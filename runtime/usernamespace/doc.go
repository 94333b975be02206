// Package usernamespace answers: which of the host's ids does a run's user
// namespace get, and can these files be used in it?
//
// It makes no namespace, that is the keeper's. It is pure Go.
//
// Read first: [Pool] (leases of ids), [Probe] (what a file system can),
// [Decide] (what was decided for a volume, once).
//
// # Ids
//
// Every run in a user namespace leases [Size] ids of the host. They come from
// what nobody else hands out: above the range of SSSD (up to 2000200000) and of
// systemd's containers (524288 to 1879048191), below its foreign ids (from
// 2147352576) and the half of the ids that some programs take for negative. When that is used up, from
// the gap between the two (1879048192 on). Ranges that /etc/subuid and /etc/subgid give to
// somebody are passed over, and so is what our own user namespace lacks,
// where we are in one. A hash of the instance's name is the first try, so that a slot
// usually keeps its ids, then the next free range.
//
// # On disk
//
//	DIR/RUN.json       a lease, in the run folder; gone with a reboot, as the runs are
//	CLAIMS/START       a link to the lease that has the range; of all daemons of the host
//	CLAIMS/lock        held while claims change
//
// Several daemons on one host cannot collide: a range is claimed in a folder that they share,
// /run/wherry-ids. A claim whose lease is gone, or has another range, counts for nothing.
//
// # Owners on disk
//
// A volume that can be mounted with shifted ids is stored with the owners that
// the container knows: the same with any range, and without a user namespace.
// What cannot is never used in one. So owners never change by how a run is
// isolated. The decision stands beside the volume and is taken once.
package usernamespace
