package ctl

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func eventsCommand(a *app) *cobra.Command {
	var follow bool
	var since string
	var f formatFlags
	c := &cobra.Command{
		Use:   "events [UNIT...]",
		Short: "What happened",
		Example: `  wherry ctl events web
  wherry ctl events -f
  wherry ctl events --since 10m
  wherry ctl events --since 4711 --format json`,
		Long:              "Each event has a number; --since goes on after one, or shows those of a time. As\nJSON, one event a line.",
		ValidArgsFunction: a.completeTargets,
		RunE: func(c *cobra.Command, args []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			wanted := map[string]bool{}
			for _, name := range args {
				wanted[name] = true
			}
			after, from, err := eventsSince(since, time.Now())
			if err != nil {
				return err
			}
			for e, err := range a.client().Events(c.Context(), after, follow) {
				if err != nil {
					return a.cannot("read events", "", err)
				}
				if e.Time.Before(from) || len(wanted) > 0 && !wanted[e.Unit] && !wanted[e.Instance] &&
					(e.Container == "" || !wanted[api.JoinTarget(e.Instance, e.Container)] && !wanted[api.JoinTarget(e.Unit, e.Container)]) {
					continue
				}
				if err := a.printEvent(e, format); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(c, "")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more")
	c.Flags().StringVar(&since, "since", "", "only those after this number, or a time: 10m ago, or 2026-01-02T15:04:05Z")
	return c
}

// eventsSince reads --since: the number of an event, how long ago, or when.
func eventsSince(s string, now time.Time) (after uint64, from time.Time, err error) {
	if s == "" {
		return 0, from, nil
	}
	if after, err = strconv.ParseUint(s, 10, 64); err == nil {
		return after, from, nil
	}
	if from, err = parseTime("since", s, now); err != nil {
		err = term.Usage("since %q: want an event's number, a duration such as 10m, or a time such as 2026-01-02T15:04:05Z", s)
	}
	return 0, from, err
}

func (a *app) printEvent(e api.Event, format term.Format) error {
	switch {
	case format.JSON:
		return term.PrintJSONLine(a.out, e)
	case !format.Table():
		return format.Print(a.out, e)
	}
	at := e.Time.Format(time.RFC3339)
	if a.out.People() {
		at = e.Time.Local().Format(time.DateTime)
	}
	text := e.Message
	switch {
	case e.Instance != "" && e.Container != "":
		text = api.JoinTarget(e.Instance, e.Container) + ": " + strings.TrimPrefix(text, "container "+e.Container+": ")
	case e.Instance != "":
		text = e.Instance + ": " + text
	case e.Unit != "":
		text = e.Unit + ": " + text
	}
	if e.By != "" {
		text += " (by " + e.By + ")"
	}
	return a.print("%s  %d  %-12s %s\n", at, e.Seq, e.Type, term.Clean(text))
}
