package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func logsCommand(a *app) *cobra.Command {
	var r api.LogsRequest
	var o logsOptions
	var tail, since, until, format string
	c := &cobra.Command{
		Use:   "logs UNIT|INSTANCE|INSTANCE/CONTAINER...",
		Short: "The output of units",
		Example: `  wherry ctl logs web
  wherry ctl logs -f --tail 20 web
  wherry ctl logs --since 10m --until 5m --timestamps web db
  wherry ctl logs --previous web.1/php`,
		Long: `Stdout and stderr come apart, byte by byte as they were written. Lines of
several instances are merged by time and have their name in front. -f goes on
until the units have ended for good, also over a restart of the daemon.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(c *cobra.Command, args []string) error {
			r.Target, r.More = args[0], args[1:]
			none, err := setTail(&r, tail)
			if err == nil {
				r.Since, err = parseTime("since", since, time.Now())
			}
			if err == nil {
				r.Until, err = parseTime("until", until, time.Now())
			}
			switch {
			case err != nil:
				return err
			case format != "text" && format != "json":
				return term.Usage("format %q: want text or json", format)
			case r.Previous && r.Follow:
				return term.Usage("what a previous run wrote cannot be followed: use --previous without -f")
			case none && !r.Follow:
				return nil
			case none:
				r.Since = time.Now()
			}
			o.json = format == "json"
			return a.logs(c.Context(), r, o)
		},
	}
	c.Flags().BoolVarP(&r.Follow, "follow", "f", false, "wait for more")
	c.Flags().StringVarP(&tail, "tail", "n", "all", "only so many lines of the end")
	c.Flags().StringVar(&since, "since", "", "only after a time: 10m ago, or 2026-01-02T15:04:05Z")
	c.Flags().StringVar(&until, "until", "", "only before a time: 10m ago, or 2026-01-02T15:04:05Z")
	c.Flags().BoolVarP(&r.Previous, "previous", "p", false, "what the run before the one that is up has written")
	c.Flags().BoolVarP(&o.timestamps, "timestamps", "t", false, "put the time before each line")
	c.Flags().BoolVar(&o.noPrefix, "no-prefix", false, "leave the name of the instance out")
	c.Flags().StringVar(&format, "format", "text", "text, or json for the records as JSON lines")
	return c
}

// logsOptions say how lines are shown.
type logsOptions struct{ timestamps, noPrefix, json bool }

// setTail reads --tail; none means that no line is wanted.
func setTail(r *api.LogsRequest, tail string) (none bool, err error) {
	if tail == "all" {
		return false, nil
	}
	n := -1
	if _, err := fmt.Sscanf(tail+"\n", "%d\n", &n); err != nil || n < 0 {
		return false, term.Usage("tail %q: want a number of lines or all", tail)
	}
	r.Tail = n
	return n == 0, nil
}

// parseTime reads --since and --until: how long ago, or when.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, term.Usage("%s %q: want a duration such as 10m, or a time such as 2026-01-02T15:04:05Z", flag, s)
}

// logs shows the output of one container as the bytes it was, of several, or with
// timestamps, line by line.
func (a *app) logs(ctx context.Context, r api.LogsRequest, o logsOptions) error {
	several, err := a.severalLogs(ctx, r)
	if err != nil {
		return err
	}
	p := &linePrinter{out: a.out, err: a.err, timestamps: o.timestamps, json: o.json, prefix: several && !o.noPrefix,
		raw: !several && !o.timestamps}
	if r.Follow {
		err = a.follow(ctx, r, p)
	} else if p.raw && !p.json {
		err = a.client().Logs(ctx, r, a.out, a.err)
	} else {
		err = printLines(ctx, a.client(), r, p, api.Cursors{})
	}
	if ferr := p.flush(); err == nil {
		err = ferr
	}
	return a.cannot("read the logs of", strings.Join(append([]string{r.Target}, r.More...), ", "), err)
}

func printLines(ctx context.Context, c *api.Client, r api.LogsRequest, p *linePrinter, seen api.Cursors) error {
	for l, err := range c.LogLines(ctx, r) {
		if err == nil {
			err = p.print(l)
		}
		if err != nil {
			return err
		}
		seen.Note(l)
	}
	return nil
}

// How long a follower waits for a daemon that is being restarted, and looks.
const (
	followPatience = time.Minute
	followRetry    = 250 * time.Millisecond
)

// follow goes on where it was when the daemon is back.
func (a *app) follow(ctx context.Context, r api.LogsRequest, p *linePrinter) error {
	client, seen, began := a.client(), api.Cursors{}, time.Now()
	var lost time.Time
	for {
		tried := time.Now()
		err := printLines(ctx, client, r, p, seen)
		if !errors.Is(err, api.ErrUnreachable) {
			return err
		}
		if time.Since(tried) > 2*followRetry || lost.IsZero() {
			lost = time.Now() // it was there again meanwhile
			fmt.Fprintln(a.err, "the daemon is away: waiting for it")
		}
		if time.Since(lost) > followPatience {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followRetry):
		}
		if r.Tail > 0 {
			r.Tail, r.Since = 0, began // what is older was shown, or was not wanted
		}
		r.After = seen.List()
	}
}

// severalLogs reports whether there is more than one log to show, now or later.
func (a *app) severalLogs(ctx context.Context, r api.LogsRequest) (bool, error) {
	if len(r.More) > 0 {
		return true, nil
	}
	name, container := api.SplitTarget(r.Target)
	d, err := a.client().Unit(ctx, name)
	if err != nil {
		return false, a.cannot("read the logs of", r.Target, err)
	}
	if container == "" && len(d.Definition.Containers) > 1 {
		return true, nil
	}
	for _, i := range d.Instances {
		if i.Name == name {
			return false, nil
		}
	}
	return len(d.Instances) > 1, nil
}

// linePrinter writes records of several streams line by line.
type linePrinter struct {
	out, err           term.Stream
	timestamps, prefix bool
	json               bool
	raw                bool // of one container: as the bytes it was

	open map[string]api.LogLine // by instance and stream: a line that has not ended
}

func (p *linePrinter) print(l api.LogLine) error {
	switch {
	case p.json:
		return term.PrintJSONLine(p.out, l)
	case p.raw:
		return p.bytes(l)
	}
	key := api.JoinTarget(l.Instance, l.Container) + "\x00" + l.Stream
	if begun, ok := p.open[key]; ok {
		l.Text = append(begun.Text, l.Text...)
		l.Time = begun.Time
		delete(p.open, key)
	}
	// A line that never ends must not grow without bound.
	if l.Partial && len(l.Text) < longestLine {
		if p.open == nil {
			p.open = map[string]api.LogLine{}
		}
		p.open[key] = l
		return nil
	}
	return p.write(l)
}

// longestLine is where a line without an end is broken.
const longestLine = 64 << 10

// flush writes lines that have never ended.
func (p *linePrinter) flush() error {
	for _, key := range slices.Sorted(maps.Keys(p.open)) {
		if err := p.write(p.open[key]); err != nil {
			return err
		}
	}
	p.open = nil
	return nil
}

func (p *linePrinter) write(l api.LogLine) error {
	var b strings.Builder
	if p.timestamps {
		b.WriteString(l.Time.Format(time.RFC3339Nano) + " ")
	}
	w := p.out
	if l.Stream == "stderr" {
		w = p.err
	}
	if p.prefix {
		b.WriteString(w.Paint(term.Faint, api.JoinTarget(l.Instance, l.Container)+" |") + " ")
	}
	b.Write(l.Text)
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// bytes writes a record as what it was made of.
func (p *linePrinter) bytes(l api.LogLine) error {
	w := p.out
	if l.Stream == "stderr" {
		w = p.err
	}
	if !l.Partial {
		l.Text = append(l.Text, '\n')
	}
	_, err := w.Write(l.Text)
	return err
}
