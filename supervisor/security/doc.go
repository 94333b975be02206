// Package security answers: what may the containers of a unit do to their host, and how
// is each of these openings closed?
//
// [Assess] is a pure function of a unit's definition and of what has been seen of its
// running containers. It lists openings, each with a weight from 0 to 10, what it
// allows and how to close it, and a score, in the manner of `systemd-analyze
// security`: 0 is closed, 10 is as good as root on the host.
//
// Invariants: the score never falls by one more opening; the order and number of other
// openings do not change an opening's weight; the same input gives the same report.
//
// Read first: [Report], [Assess].
package security
