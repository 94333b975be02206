package ctl

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func logsCommand(a *app) *cobra.Command {
	var follow, timestamps bool
	var tail, since, format string
	c := &cobra.Command{
		Use:   "logs UNIT|INSTANCE...",
		Short: "The output of units",
		Example: `  wherry ctl logs web
  wherry ctl logs -f --tail 20 web
  wherry ctl logs --since 10m --timestamps web db`,
		Long: `Stdout and stderr come apart, byte by byte as they were written. Lines of
several instances have their name in front. -f goes on until the unit has
ended for good.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			r := api.LogsRequest{Follow: follow}
			none, err := setTail(&r, tail)
			if err == nil {
				r.Since, err = parseSince(since, time.Now())
			}
			switch {
			case err != nil:
				return err
			case format != "text" && format != "json":
				return term.Usage("format %q: want text or json", format)
			case none && !follow:
				return nil
			case none:
				r.Since = time.Now()
			}
			return a.logs(c.Context(), args, r, timestamps, format == "json")
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more")
	c.Flags().StringVarP(&tail, "tail", "n", "all", "only so many lines of the end")
	c.Flags().StringVar(&since, "since", "", "only after a time: 10m ago, or 2026-01-02T15:04:05Z")
	c.Flags().BoolVarP(&timestamps, "timestamps", "t", false, "put the time before each line")
	c.Flags().StringVar(&format, "format", "text", "text, or json for the records as JSON lines")
	return c
}

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

// parseSince reads --since: how long ago, or when.
func parseSince(s string, now time.Time) (time.Time, error) {
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
	return time.Time{}, term.Usage("since %q: want a duration such as 10m, or a time such as 2026-01-02T15:04:05Z", s)
}

// logs shows one target raw, several ones or timestamps line by line.
func (a *app) logs(ctx context.Context, targets []string, r api.LogsRequest, timestamps, json bool) error {
	if len(targets) == 1 && !timestamps && !json {
		several, err := a.severalInstances(ctx, targets[0])
		if err != nil {
			return a.cannot("read the logs of", targets[0], err)
		}
		if !several {
			r.Target = targets[0]
			return a.cannot("read the logs of", targets[0], a.client().Logs(ctx, r, a.out, a.err))
		}
	}
	p := &linePrinter{out: a.out, err: a.err, timestamps: timestamps, json: json, prefix: len(targets) > 1}
	if !p.prefix && !json {
		several, err := a.severalInstances(ctx, targets[0])
		if err != nil {
			return a.cannot("read the logs of", targets[0], err)
		}
		p.prefix = several
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	client := a.client()
	failed := make([]error, len(targets))
	for n, target := range targets {
		all.Go(func() {
			mine := r
			mine.Target = target
			for l, err := range client.LogLines(ctx, mine) {
				if err == nil {
					err = p.print(l)
				}
				if err != nil {
					failed[n] = err
					return
				}
			}
		})
	}
	all.Wait()
	if err := p.flush(); err != nil {
		return err
	}
	for n, err := range failed {
		if err != nil {
			return a.cannot("read the logs of", targets[n], err)
		}
	}
	return nil
}

// severalInstances reports whether the target's lines come from more than one
// instance. An instance that is gone since is no error here.
func (a *app) severalInstances(ctx context.Context, target string) (bool, error) {
	d, err := a.client().Unit(ctx, target)
	if err != nil {
		return false, err
	}
	for _, i := range d.Instances {
		if i.Name == target {
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

	mu   sync.Mutex
	open map[string]api.LogLine // by instance and stream: a line that has not ended
}

func (p *linePrinter) print(l api.LogLine) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.json {
		return term.PrintJSONLine(p.out, l)
	}
	key := l.Instance + "\x00" + l.Stream
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
		b.WriteString(w.Paint(term.Faint, l.Instance+" |") + " ")
	}
	b.Write(l.Text)
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}
