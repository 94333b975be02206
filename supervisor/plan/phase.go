package plan

// Phase is where a run is in its life. The legal moves are a table in this
// file; nothing else assigns a phase.
type Phase string

// The phases of a run.
const (
	Pulling  Phase = "pulling"  // the image is fetched
	Starting Phase = "starting" // the container is made
	Up       Phase = "running"
	Stopping Phase = "stopping"
	Exited   Phase = "exited" // ended; its exit is recorded
	Failed   Phase = "failed" // never ran: a step of the start failed
)
