package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// statsEvery is how often the table of stats is drawn, and what the use of
// processors is taken over.
const statsEvery = time.Second

func statsCommand(a *app) *cobra.Command {
	var f formatFlags
	var once bool
	c := &cobra.Command{
		Use:   "stats [UNIT|INSTANCE[/CONTAINER]...]",
		Short: "What containers use, as it goes",
		Example: `  wherry ctl stats
  wherry ctl stats web --no-stream
  wherry ctl stats --format json`,
		Long: `CPU is 100 % for one processor. PSI is how much of the last ten seconds processes waited for CPU,
memory and io, where the host tells. With --format json each look gives one line for each container.`,
		ValidArgsFunction: a.completeTargets,
		RunE: func(c *cobra.Command, args []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			return a.stats(c.Context(), args, format, once)
		},
	}
	c.Flags().BoolVar(&once, "no-stream", false, "show it once")
	f.add(c, "")
	return c
}

func (a *app) stats(ctx context.Context, targets []string, format term.Format, once bool) error {
	ctx, stop := watching(ctx)
	defer stop()
	before, err := a.client().Stats(ctx, targets...)
	if err != nil {
		return a.cannot("get stats", "", err)
	}
	for {
		select {
		case <-ctx.Done():
			return term.Code(term.ExitInterrupted)
		case <-time.After(statsEvery):
		}
		now, err := a.client().Stats(ctx, targets...)
		if errors.Is(err, context.Canceled) {
			return term.Code(term.ExitInterrupted)
		}
		if err != nil {
			return a.cannot("get stats", "", err)
		}
		for i := range now {
			for _, b := range before {
				now[i].Since(b)
			}
		}
		if err := a.showStats(now, format, once); err != nil || once {
			return err
		}
		before = now
	}
}

// showStats prints one look. On a terminal it takes the place of the last.
func (a *app) showStats(list []api.Usage, format term.Format, once bool) error {
	switch {
	case format.JSON && !once:
		for _, u := range list {
			if err := term.PrintJSONLine(a.out, u); err != nil {
				return err
			}
		}
		return nil
	case !format.Table():
		return term.PrintEach(a.out, format, list)
	}
	if !once && a.out.People() {
		if err := a.print("\x1b[H\x1b[J"); err != nil {
			return err
		}
	}
	t := term.NewTable("CONTAINER", "STATE", "CPU", "MEMORY", "PEAK", "PIDS", "READ/WRITTEN", "NET IN/OUT", "PSI")
	for _, u := range list {
		t.Cells(term.Cell{Text: u.Instance + "/" + u.Container}, term.Cell{Text: u.State, Style: stateStyle(u.State)},
			term.Cell{Text: fmt.Sprintf("%.1f%%", u.CPUPercent)}, term.Cell{Text: used(u.MemoryCurrent, u.MemoryLimit, term.Memory)},
			term.Cell{Text: term.Memory(u.MemoryPeak)}, term.Cell{Text: used(u.Pids, u.PidsLimit, func(n int64) string { return fmt.Sprint(n) })},
			term.Cell{Text: term.Size(int64(u.IOReadBytes)) + " / " + term.Size(int64(u.IOWriteBytes))},
			term.Cell{Text: traffic(u)}, term.Cell{Text: pressure(u)})
	}
	return t.Print(a.out)
}

// used is an amount, and its limit if there is one.
func used(n, limit int64, show func(int64) string) string {
	if limit == 0 {
		return show(n)
	}
	return show(n) + " / " + show(limit)
}

func traffic(u api.Usage) string {
	if u.NetReceived == nil || u.NetSent == nil {
		return "-"
	}
	return term.Size(int64(*u.NetReceived)) + " / " + term.Size(int64(*u.NetSent))
}

func pressure(u api.Usage) string {
	if u.Pressure == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f%% %.0f%% %.0f%%", u.Pressure.CPU.Some10, u.Pressure.Memory.Some10, u.Pressure.IO.Some10)
}
