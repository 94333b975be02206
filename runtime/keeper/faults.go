package keeper

// point is a place in the keeper's work at which a test can make it fail, or
// kill somebody. A keeper that is not built with the tag "faults" has no such places: see reach.
type point string

// The points, in the order of a container's life.
const (
	atReserved   point = "start-reserved"   // the id is taken, on disk too
	atOpened     point = "start-run-group"  // the group of the run
	atLogged     point = "start-log"        // pipes, and somebody who reads them
	atPrepared   point = "start-prepared"   // filter, record, input
	atMounted    point = "start-mounted"    // the root file system
	atRead       point = "start-read"       // user and groups, volumes populated
	atSaved      point = "start-saved"      // the state has what execs need
	atCreated    point = "start-created"    // libcontainer's state
	atEntered    point = "start-entered"    // the group, on the way in
	atStarted    point = "start-started"    // the first process, which waits
	atHeld       point = "start-held"       // by its pidfd
	atJoined     point = "start-joined"     // in all groups
	atReleased   point = "start-released"   // told to go on
	atExeced     point = "start-execed"     // the program runs
	atRunning    point = "start-running"    // and is known to
	atUndo       point = "undo"             // of a start that failed
	atExecLoaded point = "exec-loaded"      // libcontainer's state
	atExecBegun  point = "exec-begun"       // the process has been put inside
	atExecNoted  point = "exec-noted"       // and is known to a next keeper
	atExecEnded  point = "exec-ended"       // before it is reaped
	atSignal     point = "stop-signal"      // before the stop signal
	atSignaled   point = "stop-signaled"    // after it
	atKillNoted  point = "stop-kill-noted"  // before the kill
	atKilled     point = "stop-killed"      // after it
	atEnded      point = "end-seen"         // the main process has ended
	atEndKept    point = "end-kept"         // and how is on disk
	atEndEmptied point = "end-emptied"      // nothing is left in the group
	atEndDrained point = "end-drained"      // all output is in the log
	atEndSwept   point = "end-swept"        // group and pipes are gone
	atRemove     point = "remove-folder"    // the container's folder is gone
	atSweepGroup point = "remove-group"     // its group
	atSweepState point = "remove-state"     // all but its state file
	atSwept      point = "remove-forgotten" // and the run's folder and group, if it was the last
	atInputKept  point = "input-kept"       // its end is on disk
	atRootRead   point = "root-read"        // of an ended container, which is about to be mounted
	atAdopt      point = "adopt"            // a keeper begins to take over
)
