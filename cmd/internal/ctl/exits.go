package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// inspection is a unit with how its containers have ended.
type inspection struct {
	api.UnitDetail
	Exits []api.ExitRecord `json:"exits"`
}

// exits are what is kept of a unit's ends. A daemon that keeps none is no failure.
func (a *app) exits(ctx context.Context, name string) []api.ExitRecord {
	list, err := a.client().Exits(ctx, name)
	if err != nil || list == nil {
		return []api.ExitRecord{}
	}
	return list
}

// shownExits is how many ends `status` shows.
const shownExits = 3

// lastExits shows the latest ends that need a word: those that nobody asked for.
func (a *app) lastExits(list []api.ExitRecord, now time.Time) error {
	t := term.NewTable("ENDED", "CONTAINER", "RUN", "HOW", "MEMORY", "PRESSURE")
	shown := 0
	for _, r := range list {
		if r.Stopped || r.Exit != nil && r.Exit.Code == 0 && r.Exit.Signal == "" && !r.Exit.Unknown {
			continue
		}
		t.Row(a.out.Since(r.At, now), r.Container, r.Run, howText(r), peakText(r.Memory), pressureText(r))
		if shown++; shown == shownExits {
			break
		}
	}
	if shown == 0 {
		return nil
	}
	_ = a.print("\n")
	return t.Print(a.out)
}

// howText is an end, or a failed start, in a clause.
func howText(r api.ExitRecord) string {
	if r.Exit == nil {
		return join(": ", "start failed", r.Step, r.Error)
	}
	text := exitText(*r.Exit)
	if o := r.LastOOM; o != nil && o.Victim != nil {
		text = join("; ", text, fmt.Sprintf("the kernel killed %s (pid %d, %s) of %d", o.Victim.Comm, o.Victim.Pid, term.Size(o.Victim.RSS), len(o.Tasks)))
	}
	return text
}

func peakText(m *api.MemoryUse) string {
	switch {
	case m == nil:
		return ""
	case m.Limit == 0:
		return "peak " + term.Size(m.Peak)
	}
	return "peak " + term.Size(m.Peak) + "/" + term.Size(m.Limit)
}

// pressureText says what there was too little of, if anything.
func pressureText(r api.ExitRecord) string {
	p := r.Pressure
	if p == nil {
		return ""
	}
	var text string
	for _, s := range []struct {
		name string
		some float64
	}{{"cpu", p.CPU.Some10}, {"memory", p.Memory.Some10}, {"io", p.IO.Some10}} {
		if s.some >= 10 {
			text = join(", ", text, fmt.Sprintf("%s %.0f%%", s.name, s.some))
		}
	}
	if text != "" && p.Host {
		text += " (host)"
	}
	return text
}
