// Package term is how the commands talk to people and to pipes: what does a
// terminal get, what does a pipe get, and with which code does a command end?
//
// The rules, kept here once: stdout is data, stderr is progress, warnings and
// hints. On a terminal there are tables cut to its width, colours and bars; in
// a pipe none of these, and times in RFC 3339. Colour only repeats what a word
// says. Bytes from elsewhere (names, reasons, labels) reach a terminal with
// their control characters replaced.
//
// Read Stream (stream.go), Table, Format and Failure first. It knows nothing
// of units or daemons.
package term
