// Package registry answers: how do we get a manifest or a blob from a registry
// that may be slow, busy, behind a mirror, or want a login?
//
// It knows nothing of stores, platforms and layers, keeps nothing on disk, and
// reads no environment variable. What a blob is for, how it is resumed and when
// a pull is over is the caller's business.
//
// Read first: Client and Repository (repository.go), then place (place.go), one
// host that may have a repository: the mirrors in their order and the registry
// itself. host (host.go) is what all repositories of one host share: connections,
// the gate that Retry-After closes, the rest that a failed mirror gets.
//
// # Invariants
//
//   - Nothing is asked before it is needed: no ping, no login without a challenge.
//   - Credentials go to the host that they are for and to the token service that it
//     names; never to the target of a redirect, never to another mirror, never in
//     plain text unless the host is loopback or listed as insecure.
//   - What is asked by digest is returned by Manifest and Small only if it hashes
//     to it. Blob streams: its caller checks.
//   - While a host's gate is closed, nobody asks it. Nobody waits for a gate longer
//     than maxWait: a longer wait is an error that says until when.
package registry
