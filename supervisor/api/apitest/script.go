package apitest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// The command of a pretended container is a script of words:
//
//	echo WORD...     a line on stdout     warn WORD...   a line on stderr
//	print WORD       without a newline    sleep          until it is stopped
//	exit CODE        end with a code      kill SIGNAL    end by a signal
//
// with ";" as a word of its own between two of them. The commands "nothing" and
// "folder" do not exist and cannot be executed; the image "missing" does not
// exist either.

// step is one command of a script.
func steps(args []string) (all [][]string) {
	all = [][]string{nil}
	for _, a := range args {
		if a == ";" {
			all = append(all, nil)
			continue
		}
		all[len(all)-1] = append(all[len(all)-1], a)
	}
	return all
}

// check is the error of starting a command.
func check(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "nothing":
		return &runtime.StepError{Step: runtime.StepProcess, Err: fmt.Errorf("nothing: %w", runtime.ErrCommand)}
	case len(args) > 0 && args[0] == "folder":
		return &runtime.StepError{Step: runtime.StepProcess, Err: fmt.Errorf("folder: %w", runtime.ErrNotExecutable)}
	}
	return nil
}

// play writes what the script says. asleep is true if it goes on until it is
// stopped.
func play(args []string, write func(stream, text string)) (e api.Exit, asleep bool) {
	for _, s := range steps(args) {
		if len(s) == 0 {
			continue
		}
		rest := strings.Join(s[1:], " ")
		switch s[0] {
		case "echo":
			write("stdout", rest+"\n")
		case "warn":
			write("stderr", rest+"\n")
		case "print":
			write("stdout", rest)
		case "sleep":
			return e, true
		case "exit":
			e.Code, _ = strconv.Atoi(rest)
			return e, false
		case "kill":
			e.Signal = rest
			return e, false
		}
	}
	return e, false
}

// RunUnit runs a script as a unit.
func (d *Daemon) RunUnit(_ context.Context, r api.RunRequest, by string, progress func(image.Progress)) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := r.Unit
	if u.Name == "" {
		d.made++
		u.Name = fmt.Sprintf("unit-%d", d.made)
	}
	if err := d.called("RunUnit", u.Name, by); err != nil {
		return "", err
	}
	if d.units[u.Name] != nil {
		return "", fmt.Errorf("unit %s: %w", u.Name, api.ErrExists)
	}
	c := u.Containers[0]
	switch {
	case c.Image == "missing":
		return "", fmt.Errorf("unit %s: container app: pull %s: %w", u.Name, c.Image, image.ErrNotFound)
	case c.Image == "pulled":
		pretendPull(c.Image, progress)
	}
	args := append(append([]string(nil), c.Entrypoint...), c.Command...)
	if err := check(args); err != nil {
		return "", fmt.Errorf("unit %s: container app: %w", u.Name, err)
	}
	p := newPretended(u, 1)
	p.start()
	d.units[u.Name] = p
	exit, asleep := play(args, func(stream, text string) { p.output = append(p.output, p.record(stream, text)) })
	if !asleep {
		p.end(exit)
	}
	if p.ended && r.Remove && !r.Attach {
		delete(d.units, u.Name)
	}
	d.change()
	return u.Name, nil
}

// record is a piece of output as the log file has it.
func (u *pretended) record(stream, text string) api.LogLine {
	line, whole := strings.CutSuffix(text, "\n")
	return api.LogLine{Unit: u.Name, Instance: u.Name + ".1", Time: time.Now(), Stream: stream, Partial: !whole, Text: []byte(line)}
}

// Write makes a unit write a line to stdout now.
func (d *Daemon) Write(unit, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.units[unit]; u != nil {
		u.output = append(u.output, u.record("stdout", text))
	}
	d.change()
}

// End ends a unit for good.
func (d *Daemon) End(unit string, e api.Exit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.units[unit]; u != nil {
		u.end(e)
	}
	d.change()
}

// Exec runs a script in a unit that runs.
func (d *Daemon) Exec(_ context.Context, r api.ExecRequest, by string, stdin, stdout, stderr *os.File) (api.Exit, error) {
	d.mu.Lock()
	err := d.called("Exec", r.Target+" "+strings.Join(r.Args, " "), by)
	name, _, _ := strings.Cut(r.Target, ".")
	if u := d.units[name]; err == nil && (u == nil || u.Running == 0) {
		err = fmt.Errorf("unit %s: %w", name, api.ErrNotRunning)
	}
	d.mu.Unlock()
	if err == nil {
		err = check(r.Args)
	}
	if err != nil {
		return api.Exit{}, err
	}
	if r.Args[0] == "env" {
		_, err := io.WriteString(stdout, strings.Join(r.Env, "\n")+"\n"+r.User+" "+r.Cwd+"\n")
		return api.Exit{}, err
	}
	if r.Args[0] == "cat" && stdin != nil {
		_, err := io.Copy(stdout, stdin)
		return api.Exit{}, err
	}
	exit, _ := play(r.Args, func(stream, text string) {
		to := stdout
		if stream == "stderr" {
			to = stderr
		}
		_, _ = io.WriteString(to, text)
	})
	return exit, nil
}

// Logs yields what units wrote, by time. It follows the first of them alone.
func (d *Daemon) Logs(ctx context.Context, r api.LogsRequest) iter.Seq2[api.LogLine, error] {
	return func(yield func(api.LogLine, error) bool) {
		var all []api.LogLine
		seen := -1 // of the first target
		for _, target := range append([]string{r.Target}, r.More...) {
			lines, err := d.written(target, r)
			if err != nil {
				yield(api.LogLine{}, err)
				return
			}
			if all = append(all, lines...); seen < 0 {
				seen = len(lines)
			}
		}
		slices.SortStableFunc(all, func(a, b api.LogLine) int { return a.Time.Compare(b.Time) })
		if r.Tail > 0 {
			all = all[max(0, len(all)-r.Tail):]
		}
		for _, l := range all {
			if !yield(l, nil) {
				return
			}
		}
		if r.Follow {
			d.followLogs(ctx, r, seen, yield)
		}
	}
}

// written is the target's output so far.
func (d *Daemon) written(target string, r api.LogsRequest) ([]api.LogLine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, _, _ := strings.Cut(target, ".")
	u := d.units[name]
	if u == nil {
		return nil, fmt.Errorf("%w: %s", api.ErrNoSuchUnit, name)
	}
	var lines []api.LogLine
	for n, l := range u.output {
		l.Cursor = api.Cursor{Instance: l.Instance, Container: l.Container, Segment: 1, Offset: int64(n + 1)}.String()
		other := strings.Contains(target, ".") && l.Instance != target || l.Time.Before(r.Since) || !r.Until.IsZero() && l.Time.After(r.Until)
		if !other && !slices.ContainsFunc(r.After, func(c string) bool { return n < behind(c) }) {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

func behind(cursor string) int {
	c, _ := api.ParseCursor(cursor)
	return int(c.Offset)
}

func (d *Daemon) followLogs(ctx context.Context, r api.LogsRequest, seen int, yield func(api.LogLine, error) bool) {
	name, _, _ := strings.Cut(r.Target, ".")
	for {
		d.mu.Lock()
		u := d.units[name]
		n, ended := len(u.output), u.ended
		d.mu.Unlock()
		lines, _ := d.written(r.Target, r)
		for ; seen < len(lines); seen++ {
			if !yield(lines[seen], nil) {
				return
			}
		}
		if ended {
			return
		}
		d.mu.Lock()
		err := d.until(ctx, func() bool { return len(u.output) > n || u.ended })
		d.mu.Unlock()
		if err != nil {
			yield(api.LogLine{}, err)
			return
		}
	}
}

// AddEvent tells that something happened.
func (d *Daemon) AddEvent(e api.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e.Seq = uint64(len(d.events) + 1)
	d.events = append(d.events, e)
	d.change()
}

// Events yields what happened.
func (d *Daemon) Events(ctx context.Context, since uint64, follow bool) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		for next := int(since); ; {
			for ; next < len(d.events); next++ {
				e := d.events[next]
				d.mu.Unlock()
				more := yield(e, nil)
				d.mu.Lock()
				if !more {
					return
				}
			}
			if !follow {
				return
			}
			if err := d.until(ctx, func() bool { return next < len(d.events) }); err != nil {
				d.mu.Unlock()
				yield(api.Event{}, err)
				d.mu.Lock()
				return
			}
		}
	}
}
