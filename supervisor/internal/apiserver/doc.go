// Package apiserver answers the API of supervisor/api on a Unix socket: how do
// other processes ask the supervisor for things, and who may?
//
// It holds no state and decides nothing about units: each handler checks the
// caller, reads the request, calls one or two methods of its backend and writes
// the answer. Read Server (server.go), its table of routes (routes.go) and
// frameWriter (stream.go) first; a file a noun holds the handlers.
//
// Invariants: nobody but root and the daemon's own user changes anything
// (peer.go); all output of a run or exec is sent before its exit; no handler
// outlives Serve; a panic of a handler ends its own request only.
//
// A caller that goes away: until a `run` has started its unit, that undoes it;
// afterwards the unit goes on, and with Remove is removed at its end. A pull
// goes on. The process of an exec goes on too, but its output pipes close, so
// that it gets SIGPIPE if it writes more.
package apiserver
