package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// statusOutput is `status --format json`.
type statusOutput struct {
	Daemon api.Info   `json:"daemon"`
	Units  []api.Unit `json:"units"`

	Operations []api.Operation `json:"operations,omitempty"`
}

func statusCommand(a *app) *cobra.Command {
	var f formatFlags
	c := &cobra.Command{
		Use:   "status [UNIT...]",
		Short: "What runs, and why something does not",
		Example: `  wherry ctl status
  wherry ctl status web
  wherry ctl status --format json`,
		Long:              "Ends with 3 if a unit that was named does not run.",
		ValidArgsFunction: a.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				return a.statusOf(c.Context(), args, format)
			}
			return a.statusAll(c.Context(), format)
		},
	}
	f.add(c, "")
	return c
}

// statusAll is the daemon and all units with their instances.
func (a *app) statusAll(ctx context.Context, format term.Format) error {
	info, err := a.client().Info(ctx)
	if err != nil {
		return a.cannot("get the status", "", err)
	}
	units, err := a.client().Units(ctx)
	switch {
	case err != nil:
		return a.cannot("get the status", "", err)
	case format.JSON:
		return format.Print(a.out, statusOutput{info, units, a.operations(ctx)})
	case !format.Table():
		return term.PrintEach(a.out, format, units)
	}
	now := time.Now()
	keeper := fmt.Sprintf("keeper pid %d", info.KeeperPid)
	if info.KeeperPid == 0 {
		keeper = a.out.Paint(term.Bad, "keeper away")
	}
	up := "up since " + info.StartedAt.Format(time.RFC3339)
	if a.out.People() {
		up = "up " + term.Short(now.Sub(info.StartedAt))
	}
	if err := a.print("wherry %s, pid %d, %s, %s\ncgroup %s (%s), %s\n", info.Version, info.Pid, keeper, up,
		info.Cgroup, info.CgroupMode, strings.TrimSpace("bridge "+info.Bridge+" "+info.Subnet)); err != nil {
		return err
	}
	operations := a.operations(ctx)
	if err := a.storeStatus(info, operations, now); err != nil {
		return err
	}
	a.warn(info.Warnings)
	t := term.NewTable("UNIT", "STATE", "READY", "PID", "ADDRESS", "RESTARTS", "SINCE", "NOTE")
	for _, u := range units {
		a.statusRows(t, u, operations, now)
	}
	return t.Print(a.out)
}

// statusRows is a unit and, where they tell more, its instances.
func (a *app) statusRows(t *term.Table, u api.Unit, operations []api.Operation, now time.Time) {
	alone := len(u.Instances) == 1
	row := func(name, state, ready, pid, address string, restarts int, since time.Time, note string) {
		t.Cells(term.Cell{Text: name}, term.Cell{Text: state, Style: stateStyle(state)}, term.Cell{Text: ready},
			term.Cell{Text: pid}, term.Cell{Text: address}, term.Cell{Text: fmt.Sprint(restarts)},
			term.Cell{Text: a.out.Since(since, now)}, term.Cell{Text: note})
	}
	pid, address, note := "", "", unitNote(u)
	if alone {
		pid, address = pidText(u.Instances[0].Pid), u.Instances[0].Address
		note = join("; ", note, a.instanceNote(u.Instances[0], now), pullNote(operations, u.Instances[0].Name))
	}
	row(u.Name, u.State, fmt.Sprintf("%d/%d", u.Running, u.Replicas), pid, address, u.Restarts, u.Since, note)
	if alone {
		return
	}
	for _, i := range u.Instances {
		since := i.StartedAt
		if i.State != plan.StateRunning && !i.EndedAt.IsZero() {
			since = i.EndedAt
		}
		row("  "+i.Name, i.State, "", pidText(i.Pid), i.Address, i.Restarts, since, join("; ", a.instanceNote(i, now), pullNote(operations, i.Name)))
	}
}

func pidText(pid int) string {
	if pid == 0 {
		return ""
	}
	return fmt.Sprint(pid)
}

// unitNote is what a person should know of a unit, besides its instances.
func unitNote(u api.Unit) string {
	var note string
	if !slices.ContainsFunc(u.Instances, func(i api.Instance) bool { return i.Reason != "" && i.Reason == u.Reason }) {
		note = u.Reason
	}
	if u.Pending != nil {
		note = join("; ", note, fmt.Sprintf("%s is not applied: %s", u.Pending.Source, u.Pending.Reason))
	}
	return note
}

// instanceNote is what a person should know of an instance.
func (a *app) instanceNote(i api.Instance, now time.Time) string {
	if i.State == plan.StateRunning {
		return ""
	}
	// The moment of the next try says more than how long the wait is.
	reason, _, _ := strings.Cut(i.Reason, "; next try")
	if i.Error != "" && strings.Contains(reason, i.Error) {
		i.Error = ""
	}
	note := join("; ", reason, i.Error)
	if i.Exit != nil && note == "" {
		note = exitText(*i.Exit)
	}
	if i.NextTry.IsZero() {
		return note
	}
	next := "next try at " + i.NextTry.Format(time.RFC3339)
	if a.out.People() {
		next = "next try in " + term.Short(i.NextTry.Sub(now)+time.Second)
	}
	if i.Attempt > 0 {
		next += fmt.Sprintf(", attempt %d", i.Attempt)
	}
	return join("; ", note, next)
}

// exitText is an exit in a few words.
func exitText(e api.Exit) string {
	var s string
	switch {
	case e.Unknown:
		s = "exit unknown"
	case e.Signal != "":
		s = "ended by " + e.Signal
	default:
		s = fmt.Sprintf("exited %d", e.Code)
	}
	if e.OOM {
		s += " (out of memory)"
	}
	if e.Cause != "" {
		s += ": " + e.Cause
	}
	return s
}

// join puts what is not empty together.
func join(sep string, parts ...string) string {
	var some []string
	for _, p := range parts {
		if p != "" {
			some = append(some, p)
		}
	}
	return strings.Join(some, sep)
}

// stateStyle colours a state's word.
func stateStyle(state string) term.Style {
	switch state {
	case plan.StateRunning, plan.StateCompleted:
		return term.Good
	case plan.StateFailed, plan.StateBackoff:
		return term.Bad
	case plan.StateStopped:
		return term.Faint
	}
	return term.Busy
}
