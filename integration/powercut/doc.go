// Package powercut tests what a power cut leaves of an image store. It has no code
// but tests.
//
// A file in a FUSE file system of the test's own carries, through a loop device, an
// ext4 as hosts have it. The test logs every write and every flush that reaches
// the file while a store below it pulls, tags, loads, removes and collects. Then it makes
// the states that a disk could be in if the power had gone at a moment: what was
// written up to the last flush, and any part, in pieces of 4 KiB, of what was written since. Each is mounted, which
// replays the journal, opened as after a boot, and judged (worker_test.go).
package powercut
