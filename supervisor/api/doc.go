// Package api is the contract between the daemon and those who talk to it:
// what goes over the socket?
//
// It holds the wire types, all of them plain values that marshal to JSON, and
// Client, which speaks them. It does not decide or store anything, and knows
// the supervisor's errors only by their codes. Read Client (client.go), Unit
// (types.go) and Error (errors.go) first.
//
// HTTP on a Unix socket: a call is a request with a JSON body and a JSON
// answer, or an Error with a status of 400 and more. Streams are of two kinds:
// frames (frame.go) where a process's bytes travel, lines of JSON otherwise.
//
// Invariants: fields are only added; times are RFC 3339; an exit is never
// folded into one number. testdata/*.json holds every message as it stands on
// the wire, and a test compares them byte by byte.
package api
