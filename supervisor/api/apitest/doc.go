// Package apitest is a daemon that only pretends: what would the API answer?
//
// It serves the real API, over a real Unix socket, on units that exist in
// memory only, for tests of programs that use api.Client. No root, no
// containers. Read Daemon (daemon.go) first; script.go says what the pretended
// containers can do.
package apitest
