// Soak runs one hundred units that crash, flood their logs, are exec'd into, stopped,
// re-applied and pulled at random on a daemon of its own, kills daemon and keeper now and
// then, and afterwards compares with the beginning all that a leak would raise. See
// scripts/soak.
//
//	soak [flags] [DURATION]
//	soak --sweep FOLDER     take away what a soak that was killed has left
//
// Read first: soak.go (the phases), ops.go (what is done to units), watch.go (what must
// hold all the while) and measure.go (what is compared).
//
// # What must hold
//
//   - No operation fails but for a reason that errors.go expects.
//   - A program that ends says how in its last line; the recorded exit says the same.
//   - Programs count in their logs. No number is missing, and none repeats unless a keeper
//     was killed.
//   - Every event is told once, in order, to a follower who loses its connection now and then.
//   - `wherry ctl status` answers whenever a daemon is there.
//   - Once the noise has stopped, what should run does.
//   - Once all units are gone, everything is as it was before them.
package main
