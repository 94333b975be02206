// Package plan answers one question: given what is wanted and what is, what is
// to be done now, and when is the next moment worth looking again?
//
// Compute is a pure function. It does no I/O, reads no clock, draws no random
// number, starts nothing and depends on no map's order: the same Input gives
// the same Plan, byte for byte. The daemon executes the plan, `ctl diff` prints
// it, the event log records it and property tests check it.
//
// The package does not act, wait or remember. What neither the kernel nor the
// unit files know (how often an instance failed) is the Attempts value, which
// the caller keeps, hands in as Input.Memory and moves on with After whenever a
// run ends.
//
// Read first: Input, Plan, Compute; then Attempts with After and Delay; then
// Phase.
//
// Invariants, each held by a property test:
//
//   - the plan after a plan's effects, the clock unchanged, is empty;
//   - an instance never has two live runs, a unit never more than its replicas;
//   - a unit starts after what it depends on and stops before it;
//   - replicas are replaced one after the other, and the next only when the one
//     before runs in the new revision;
//   - no back-off is longer than max_delay * (1 + jitter);
//   - units that depend on each other in a circle wait and say so, and are
//     still stopped when asked.
//
// A run's phases, printed from the table of legal moves by Diagram:
//
//	pulling  -> starting | stopping | failed
//	starting -> running | stopping | exited | failed
//	running  -> stopping | exited
//	stopping -> exited | failed
//	exited   (the end)
//	failed   (the end)
package plan
