// Package imagetest answers: how does a test, or the demo, get a registry and
// images without a network?
//
// It is for tests and demonstrations only; nothing of it is durable. Read first:
// Registry, Image and Entry. A Registry serves on loopback from memory and can
// be made to lie: see Fault.
package imagetest
