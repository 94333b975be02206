// Package logfile answers: what did this container write, and when?
//
// A [Writer] turns raw output into records in the format of the Kubernetes
// container runtime interface, so that any log shipper can read the files as
// they stand, and rotates them. [Read] gives the records back in order, also
// while they are being written. The package does not know containers, does not
// decide where files lie, and never reads a record's text.
//
// Read first: [Writer], [Read], and segment.go for the layout.
//
// # Layout
//
//	app.log -> app.log.000012.web.1-7f3k    what is being written
//	app.log.000012.web.1-7f3k               one segment of the run web.1-7f3k
//	app.log.000011.web.1-7f3k
//	app.log.000010.web.1-2m9q               a segment of the run before
//
// A segment has its name from its first byte to its last: base, sequence
// number, run. The names are the index; there is no other one that could
// disagree with the files after a crash. The plain name is a symbolic link for
// people, `tail -F` and log shippers.
//
// # Invariants
//
//   - The segment with the highest number is the only one that is written. Once
//     a higher one exists, a segment never changes again, so a reader that has
//     seen the next one and then reads to the end has read everything.
//   - A segment belongs to one run. A new run begins a new one.
//   - Every record is one line. A file ends with a newline except while a write
//     is under way or after a crash; what follows the last newline is no record.
//   - All segments together take at most maxSize times maxFile bytes, and there
//     are at most maxSegments of them. The oldest go first; where there are too
//     many, the oldest short ones.
//   - What could not be written is counted, and the count is written into the
//     stream at the place where it is missing.
//   - A [Place] is a segment's number and an offset. Neither ever changes its
//     meaning, unless somebody empties a file by hand.
package logfile
