// Package event is the supervisor's diary: what happened to which unit, in
// order, on disk, bounded.
//
// Read first: the constants of event.go, which list every type an api.Event
// can have, and Log.
//
// What it does not do: decide anything. No code reads events to find out what
// runs; they are for people, agents and audit.
//
// On disk (DIR is root/events):
//
//	DIR/00000000000000000001.jsonl   one api.Event a line, named by the first
//	DIR/00000000000000004711.jsonl   sequence number it may hold
//
// Invariants:
//   - Sequence numbers only grow, also across restarts, and never repeat.
//   - At most Segments files of about SegmentSize bytes; the oldest goes first.
//   - A line is whole or absent: a line cut off by a crash is removed by Open,
//     one cut off by a full disk at once.
//   - Append never waits for a reader. Readers read the files; a reader that
//     fell behind what was deleted sees it as a jump of Seq.
//   - What was appended is synced within SyncEvery, many events at a time.
package event
