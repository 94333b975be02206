// Package copying copies files into and out of a container's root folder, as tar
// streams: what is where, and how does it get there without leaving the root?
//
// It knows neither containers nor the API. Both sides of a copy use it: the daemon with the
// root folder of a container, the client with a folder of its own. Read [Root] first.
//
// Invariants: whoever writes below the root at the same time, and whatever an archive holds,
// nothing outside the root is read or written. Every path is resolved by openat2(2) with
// RESOLVE_IN_ROOT (Linux 5.6), and what is below a folder by descriptors that do not follow
// links (CVE-2018-15664, CVE-2019-14271). Devices, pipes and sockets are neither opened nor
// made.
package copying
