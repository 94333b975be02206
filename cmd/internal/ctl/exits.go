package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
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

// lastExits shows the latest ends that need a word: those that nobody asked for. Success
// does where the unit should go on.
func (a *app) lastExits(d api.UnitDetail, list []api.ExitRecord, now time.Time) error {
	t := term.NewTable("ENDED", "CONTAINER", "RUN", "HOW", "MEMORY", "PRESSURE")
	shown := 0
	for _, r := range list {
		success := r.Exit != nil && r.Exit.Code == 0 && r.Exit.Signal == "" && !r.Exit.Unknown
		if r.Stopped || success && d.State == plan.StateCompleted {
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
		reason := strings.TrimPrefix(r.Error, "container "+r.Container+": ") // a column of its own says it
		return join(": ", "start failed", r.Step, strings.TrimPrefix(reason, r.Step+": "))
	}
	o := r.LastOOM
	if o == nil || o.Victim == nil {
		return exitText(*r.Exit)
	}
	x := *r.Exit
	if x.OOM {
		x.Cause = "" // what follows says it
	}
	return fmt.Sprintf("%s; the kernel killed %s (pid %d, %s) of %d %s", exitText(x), o.Victim.Comm, o.Victim.Pid,
		term.Memory(o.Victim.RSS), len(o.Tasks), plural(len(o.Tasks), "process", "processes"))
}

func peakText(m *api.MemoryUse) string {
	switch {
	case m == nil:
		return ""
	case m.Limit == 0:
		return "peak " + term.Memory(m.Peak)
	}
	return "peak " + term.Memory(m.Peak) + "/" + term.Memory(m.Limit)
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
