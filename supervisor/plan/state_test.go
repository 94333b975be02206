package plan

import (
	"testing"
)

func TestState(t *testing.T) {
	done := map[string]Attempts{"web.1": {Done: true, Revision: 2}}
	gaveUp := map[string]Attempts{"web.1": {Done: true, Error: "gave up", Revision: 2}}
	backoff := []Waiting{{Unit: "web", Instance: "web.1", Until: t0}}
	waits := []Waiting{{Unit: "web", Instance: "web.1"}}
	for _, c := range []struct {
		want  string
		d     Desired
		runs  []Run
		mem   map[string]Attempts
		waits []Waiting
	}{
		{"running", want("web", 2), runs("web.1-a running 2", "web.2-a running 2", "db.1-a failed 2"), nil, nil},
		{"running", want("web", 2), runs("web.2-a running 2"), done, nil},
		{"degraded", want("web", 2), runs("web.1-a running 2", "web.2-a starting 2"), nil, nil},
		{"degraded", want("web", 2), runs("web.2-a running 2"), gaveUp, nil},
		{"starting", want("web", 2), runs("web.1-a starting 2"), nil, nil},
		{"starting", want("web", 1), nil, nil, nil},
		{"starting", want("web", 1), nil, map[string]Attempts{"web.1": {Done: true, Revision: 1}}, nil},
		{"pulling", want("web", 2), runs("web.1-a pulling 2", "web.2-a starting 2"), nil, nil},
		{"waiting", want("web", 1), nil, nil, waits},
		{"backoff", want("web", 1), runs("web.1-a exited 2"), nil, backoff},
		{"stopping", want("web", 1), runs("web.1-a stopping 1"), nil, nil},
		{"stopping", want("web", 1).with(stopped), runs("web.1-a running 1"), nil, nil},
		{"stopping", want("web", 0), runs("web.1-a running 1"), nil, nil},
		{"stopped", want("web", 1).with(stopped), runs("web.1-a exited 1"), gaveUp, nil},
		{"stopped", want("web", 1).with(removed), nil, nil, nil},
		{"stopped", want("web", 0), nil, nil, nil},
		{"completed", want("web", 1), runs("web.1-a exited 2"), done, nil},
		{"failed", want("web", 1), runs("web.1-a exited 2"), gaveUp, nil},
		{"failed", want("web", 2), runs("web.1-a exited 2", "web.2-a starting 2"), gaveUp, nil},
	} {
		if got := State(c.d, c.runs, c.mem, c.waits); got != c.want {
			t.Errorf("%v, memory %v, waiting %v: got %s, want %s", c.runs, c.mem, c.waits, got, c.want)
		}
	}
}

func TestInstanceState(t *testing.T) {
	all := runs("web.1-a running 2", "web.2-a pulling 2", "web.3-a running 2", "web.4-a exited 2")
	for instance, word := range map[string]string{"web.1": "running", "web.2": "pulling", "web.3": "stopping", "web.4": "stopped"} {
		if got := InstanceState(want("web", 2), instance, all, nil, nil); got != word {
			t.Errorf("%s: got %s, want %s", instance, got, word)
		}
	}
	if got := InstanceState(want("web", 2).with(stopped), "web.1", all, nil, nil); got != "stopping" {
		t.Errorf("of a stopped unit: got %s", got)
	}
}
