// Package supervisor keeps units running on one host: it decides what should
// run, sees what does, and takes the next step.
//
// It touches no namespace, mount, archive or registry itself: packages
// runtime, runtime/network and image do. Embedders need only New, Run and the
// verbs: Apply, Start, Stop, Restart, Remove, RunUnit, Exec, Logs, Events.
//
// # The model
//
// Wanted is the current revision of each unit and the operator's intent, in
// the database (internal/state). Is comes from the keeper and the folders of
// runs, never from the database. Next is plan.Compute of both: a value, which
// the loop carries out.
//
//	unit files ── apply ──▶ revisions, intent ──┐
//	                                            ├─▶ plan.Compute ─▶ actions ─▶ start, stop, remove
//	keeper ── events, list ──▶ runs, attempts ──┘                                │
//	   ▲                                                                         │
//	   └─────────────────────────────────────────────────────────────────────────┘
//
// # The loop
//
// One goroutine owns the state: type loop. Everybody else sends it values
// (type message) and reads snapshots that never change (type snapshot). A step
// of the loop takes all messages there are, makes what they changed durable in
// one batch, plans the units that have changed and what hangs together with them
// by depends_on (stale.go), sets the plan's actions going, publishes the next
// snapshot, and only then answers whoever asked. All units are planned once a
// minute, and in every step while the host goes down. An action has a goroutine of
// its own, which reports back with a message; while it is under way the plan
// knows so and leaves its instance alone. So a container that hangs in the
// kernel holds up its own instance and nothing else. Every goroutine is
// awaited at the end of Run.
//
// Making a container is a list of named steps (start.go); undoing is another
// (cleanup.go), which works from the run's id and the disk alone. A failed
// start, a removal and the recovery after a crash are the same code.
//
// # The life of a run
//
// Printed from the plan's table of legal moves:
//
//	pulling  -> starting | stopping | failed
//	starting -> running | stopping | exited | failed
//	running  -> stopping | exited
//	stopping -> exited | failed
//	exited   (the end)
//	failed   (the end)
//
// # What survives what
//
//	                        daemon killed   keeper killed   reboot, power cut
//	containers              run on          run on          end
//	exits meanwhile         known           known           unknown
//	revisions, intent       kept            kept            kept
//	attempts, back-off      kept            kept            kept, but for the last 200 ms
//	events                  kept            kept            kept, but for the last 100 ms
//	`run --rm` units        kept            kept            gone
//
// What is wanted is synced before the caller is answered. Attempts are written
// within 200 ms, and before the run they count is removed: a run that was not
// counted is found again and counted then. A `run --rm` unit is on disk only
// beside its run, and costs no sync.
//
// # What is deleted
//
// Images that no container, no start under way and no kept revision needs go
// when the disk is too full, the longest unused first (tidy.go, holds.go). Runs
// that have ended go after a week, or sooner if the disk is full or there are
// too many. If that does not help, pressure.go says so: an event, a warning of
// `status`, and pulls that are refused until there is room; then what waited
// for it is tried again. What runs is never touched.
//
// # On disk
//
//	ROOT/daemon.lock             held by the one daemon; so is RUN_DIR/daemon.lock
//	ROOT/state.db                package internal/state
//	ROOT/events/                 package event
//	ROOT/runs/RUN/unit.json      the unit as the run was started (type record)
//	ROOT/runs/RUN/NAME.d/        of container NAME: hosts, hostname, resolv.conf,
//	                             volumes/N (anonymous ones); upper, work of package image
//	ROOT/runs/RUN/.removing      the removal of several containers has begun
//	ROOT/runs/RUN/NAME           of package runtime
//	ROOT/logs/UNIT/INSTANCE/NAME.log
//	ROOT/exits/                  package internal/exits
//	ROOT/volumes/NAME/data       named volumes; nothing here ever deletes one
//
// Read first: Options, Supervisor, then loop.go and dispatch.go.
package supervisor
