// Package doctor answers: can this host run containers well, and what has to be
// typed where it cannot?
//
// It tries what can be tried without anybody noticing: mounts that are in no
// namespace, a network namespace of its own, a folder below the root that is gone afterwards. The
// rest it reads. It changes nothing, heals nothing, and sends nothing to a registry
// unless it is told to.
//
// Read first: [Options], [Run], and the table of checks (checks.go). A check is one
// function that looks at an exam and returns one finding; it stands in the file of its
// area. What a check reads below /proc, /sys and /etc goes through host, what it tries
// through probes: both have fakes in the tests.
//
// Invariants: each check has a deadline, and one that hangs (a dead NFS server) costs
// its own line only; every finding that is not ok has a remedy that can be typed or
// written into a file; no finding holds a secret.
package doctor
