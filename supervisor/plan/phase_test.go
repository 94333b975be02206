package plan

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestPhaseMoves(t *testing.T) {
	for _, from := range Phases() {
		for _, to := range Phases() {
			got, err := from.To(to)
			legal := slices.Contains(moves[from], to)
			switch {
			case legal && (err != nil || got != to):
				t.Errorf("%s to %s: got %s, %v", from, to, got, err)
			case !legal && (err == nil || got != from):
				t.Errorf("%s to %s is not in the table, got %s, %v", from, to, got, err)
			}
		}
	}
	if _, err := Exited.To(Up); err == nil || err.Error() != "phase exited: no move to running" {
		t.Errorf("got %v", err)
	}
}

func TestPhaseTableIsWhole(t *testing.T) {
	if len(moves) != len(Phases()) {
		t.Fatalf("%d phases have moves, %d exist", len(moves), len(Phases()))
	}
	for _, p := range Phases() {
		if p.Live() == p.Ended() {
			t.Errorf("%s is both live and ended, or neither", p)
		}
		if p.Ended() != (len(moves[p]) == 0) {
			t.Errorf("%s: ended is %v, moves are %v", p, p.Ended(), moves[p])
		}
	}
}

// The diagram in doc.go is the one the table prints.
func TestDiagramInDoc(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var quoted strings.Builder
	for line := range strings.Lines(Diagram()) {
		quoted.WriteString("//\t" + line)
	}
	if !strings.Contains(string(doc), quoted.String()) {
		t.Errorf("doc.go does not hold the diagram:\n%s", quoted.String())
	}
}
