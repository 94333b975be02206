// Package state is the supervisor's memory on disk: what should run, and the
// little that neither the kernel nor a unit file knows.
//
// Read first: the records of record.go, then Batch and Store.
//
// What it does not do: say what runs. That comes from the kernel and the
// keeper; a record that claims it would be wrong sooner or later.
//
// On disk, one bbolt file with a bucket a kind of record; keys and values:
//
//	meta        "version"              the number of the last migration, in ASCII
//	            "oldest"               the first version whose code can still work with it
//	units       NAME                   Unit, as JSON
//	revisions   NAME 0x00 NUMBER       Revision, as JSON; NUMBER is 8 bytes, big endian
//	attempts    UNIT 0x00 INSTANCE     Attempts, as JSON
//	files       PATH                   File, as JSON: what of the units folder was applied
//
// Invariants:
//   - Commit returns once the batch is on disk, all of it or nothing. Whole
//     loop steps share one batch, so that one sync serves many callers.
//   - Later is for what the next daemon can do without or find again: it is
//     written within lazyDelay, or with the next Commit. A record that is put
//     and deleted in between costs no disk access at all, so that
//     `run --rm` waits for no disk.
//   - Before the first write of a newer version a copy is on disk, FILE.bak-VERSION.
//   - A file of a newer version is used as it is if it says that we can, else
//     refused, never rewritten; the error names the copy to go back to.
package state
