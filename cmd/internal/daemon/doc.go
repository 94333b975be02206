// Package daemon is `wherry daemon`: how do flags, wherry.yaml, systemd and
// signals become a running supervisor?
//
// It reads the configuration (config.go lists every key with its default),
// makes supervisor.Options of it, and runs the supervisor until SIGTERM or
// SIGINT. It decides nothing about units.
//
// What belongs to the process and not to the supervisor is here, too: what systemd is
// told (systemd.go), how much memory it may take (memory.go), descriptors of
// whoever started it (inherited.go), and orphans where it is process 1 (reap.go).
//
// Invariants: flags win over the file, the file over the defaults; an invalid
// file is an error with file:line:column at the start, and changes nothing at a
// reload.
package daemon
