package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Phase is where a run is in its life. The legal moves are a table in this
// file; nothing else assigns a phase.
type Phase string

// The phases of a run.
const (
	Pulling  Phase = "pulling"  // the image is fetched; every run begins here
	Starting Phase = "starting" // the container is made
	Up       Phase = "running"
	Stopping Phase = "stopping" // asked to end, or its pull is aborted
	Exited   Phase = "exited"   // ended; its exit is recorded
	Failed   Phase = "failed"   // never ran: a step of the start failed, or it was stopped before
)

// Phases lists every phase in the order of a life.
func Phases() []Phase {
	return []Phase{Pulling, Starting, Up, Stopping, Exited, Failed}
}

// moves is the table of legal moves.
var moves = map[Phase][]Phase{
	Pulling: {Starting, Stopping, Failed},
	// A process may end before its start was confirmed: starting to exited.
	Starting: {Up, Stopping, Exited, Failed},
	Up:       {Stopping, Exited},
	// A run that was stopped while pulling never ran: stopping to failed.
	Stopping: {Exited, Failed},
	Exited:   nil,
	Failed:   nil,
}

// To is the phase after the move, or an error and the old phase if the table
// does not know the move.
func (p Phase) To(next Phase) (Phase, error) {
	if slices.Contains(moves[p], next) {
		return next, nil
	}
	return p, fmt.Errorf("phase %s: no move to %s", p, next)
}

// Live tells whether the run holds its instance's slot: it has not ended.
func (p Phase) Live() bool {
	switch p {
	case Pulling, Starting, Up, Stopping:
		return true
	}
	return false
}

// Ended tells whether the run's life is over.
func (p Phase) Ended() bool { return p == Exited || p == Failed }

// Diagram is the table of legal moves as text, one phase a line.
func Diagram() string {
	var b strings.Builder
	for _, from := range Phases() {
		to := moves[from]
		if len(to) == 0 {
			fmt.Fprintf(&b, "%-8s (the end)\n", from)
			continue
		}
		words := make([]string, len(to))
		for i, p := range to {
			words[i] = string(p)
		}
		fmt.Fprintf(&b, "%-8s -> %s\n", from, strings.Join(words, " | "))
	}
	return b.String()
}
