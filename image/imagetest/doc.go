// Package imagetest answers: how does a test, or the demo, get a registry and
// images without a network?
//
// It is for tests and demonstrations only; nothing of it is durable. Read first:
// Registry, Image and Entry. A Registry serves on loopback from memory, with a
// Login and with the TLS of a CA if wanted. A FaultProxy stands before any registry,
// real ones too, counts what goes through it and breaks it by Rule.
package imagetest
