package ctl

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// statusOf is each named unit in detail. It fails if one of them is not
// running.
func (a *app) statusOf(ctx context.Context, patterns []string, format term.Format) error {
	units, err := a.client().Units(ctx, patterns...)
	if err != nil {
		err = a.cannot("get the status of", strings.Join(patterns, " "), err)
		if errors.Is(err, api.ErrNoSuchUnit) {
			a.hintRefused(ctx, patterns, err)
		}
		return err
	}
	details := make([]api.UnitDetail, 0, len(units))
	down := false
	for _, u := range units {
		d, err := a.client().Unit(ctx, u.Name)
		if err != nil {
			return a.cannot("get the status of", u.Name, err)
		}
		down = down || d.State != plan.StateRunning
		details = append(details, d)
	}
	if format.Table() {
		usage, operations := a.usage(ctx), a.operations(ctx)
		for n, d := range details {
			if n > 0 {
				_ = a.print("\n")
			}
			if err := a.unitStatus(ctx, d, usage, operations); err != nil {
				return err
			}
		}
	} else if err := term.PrintEach(a.out, format, details); err != nil {
		return err
	}
	if down {
		return term.Code(term.ExitNotRunning)
	}
	return nil
}

// hintRefused makes the failure say why the units folder has a file of such a
// name and yet there is no unit.
func (a *app) hintRefused(ctx context.Context, names []string, err error) {
	var f *term.Failure
	info, infoErr := a.client().Info(ctx)
	if infoErr != nil || !errors.As(err, &f) {
		return
	}
	for _, w := range info.Warnings {
		path, _, _ := strings.Cut(w, ":")
		stem, ok := strings.CutSuffix(filepath.Base(path), filepath.Ext(path))
		if ok && filepath.IsAbs(path) && slices.Contains(names, stem) {
			f.Hint = "its file is not applied: " + w
			return
		}
	}
}

// unitStatus is one unit in detail.
func (a *app) unitStatus(ctx context.Context, d api.UnitDetail, usage map[string]api.UnitUsage, operations []api.Operation) error {
	now := time.Now()
	head := term.NewTable()
	field := func(name, text string) {
		if text != "" {
			head.Cells(term.Cell{Text: name, Style: term.Faint}, term.Cell{Text: text})
		}
	}
	state := d.State
	if since := a.out.Since(d.Since, now); since != "" {
		state += ", since " + since
	}
	head.Cells(term.Cell{Text: "unit", Style: term.Faint}, term.Cell{Text: d.Name, Style: term.Bold})
	head.Cells(term.Cell{Text: "state", Style: term.Faint}, term.Cell{Text: state, Style: stateStyle(d.State)})
	field("why", unitNote(d.Unit))
	field("intent", d.Intent)
	field("ready", fmt.Sprintf("%d of %d", d.Running, d.Replicas))
	field("restarts", fmt.Sprint(d.Restarts))
	field("image", imageText(d.Unit))
	field("digest", d.Digest)
	if d.Stale {
		field("stale", "the registry did not answer when the revision started: there may be a newer image")
	}
	field("command", strings.Join(d.Command, " "))
	field("network", join(", ", d.Network, portList(d.Ports)))
	for _, i := range d.Instances {
		if strings.HasPrefix(i.UserNS, "none: ") { // what has one needs no word
			field("userns", i.UserNS)
			break
		}
	}
	if u, ok := usage[d.Name]; ok {
		field("disk", usageText(u))
	}
	if len(d.Revisions) > 0 {
		r := d.Revisions[0]
		field("revision", join(", ", fmt.Sprint(r.Number), r.AppliedAt.Format(time.RFC3339), "by "+r.By, r.Source))
	}
	if err := head.Print(a.out); err != nil || len(d.Instances) == 0 {
		return err
	}
	_ = a.print("\n")
	t := term.NewTable("INSTANCE", "STATE", "PID", "ADDRESS", "MEMORY", "RESTARTS", "STARTED", "NOTE")
	for _, i := range d.Instances {
		t.Cells(term.Cell{Text: i.Name}, term.Cell{Text: i.State, Style: stateStyle(i.State)}, term.Cell{Text: pidText(i.Pid)},
			term.Cell{Text: i.Address}, term.Cell{Text: memoryText(d, i.Name)}, term.Cell{Text: fmt.Sprint(i.Restarts)},
			term.Cell{Text: a.out.Since(i.StartedAt, now)}, term.Cell{Text: join("; ", a.instanceNote(i, now), pullNote(operations, i.Name))})
		if len(i.Containers) > 1 {
			a.containerLines(t, d, i, now)
		}
	}
	if err := t.Print(a.out); err != nil {
		return err
	}
	return a.lastExits(d, a.exits(ctx, d.Name), now)
}

// containerLines shows the containers of an instance below it, in the order of
// their start.
func (a *app) containerLines(t *term.Table, d api.UnitDetail, i api.Instance, now time.Time) {
	for _, c := range i.Containers {
		note := ""
		if c.State != plan.StateCompleted {
			note = a.instanceNote(api.Instance{State: c.State, Reason: c.Reason, NextTry: c.NextTry, Attempt: c.Attempt, Exit: c.Exit}, now)
		}
		if note == "" && !c.Essential {
			note = "not essential"
		}
		t.Cells(term.Cell{Text: "  " + c.Name}, term.Cell{Text: c.State, Style: stateStyle(c.State)}, term.Cell{Text: pidText(c.Pid)},
			term.Cell{}, term.Cell{Text: memoryText(d, api.JoinTarget(i.Name, c.Name))}, term.Cell{Text: fmt.Sprint(c.Restarts)},
			term.Cell{Text: a.out.Since(c.StartedAt, now)}, term.Cell{Text: join("; ", c.Image, note)})
	}
}

// memoryText is an instance's memory, of its limit if there is one.
func memoryText(d api.UnitDetail, instance string) string {
	s, ok := d.Stats[instance]
	if !ok {
		return ""
	}
	if s.MemoryLimit == 0 {
		return term.Memory(s.MemoryWorking)
	}
	return term.Memory(s.MemoryWorking) + "/" + term.Memory(s.MemoryLimit)
}
