package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// app is what every verb has at hand.
type app struct {
	in       *os.File
	out, err term.Stream
	args     []string // as the process was called, for hints
	socket   string
	dialed   *api.Client
	look     Look
}

// client is the connection to the daemon.
func (a *app) client() *api.Client {
	if a.dialed == nil {
		a.dialed = api.Dial(a.socket)
	}
	return a.dialed
}

// note says something to a person, not to a pipe's reader.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.err, format+"\n", args...)
}

// warn passes warnings of the daemon on.
func (a *app) warn(warnings []string) {
	for _, w := range warnings {
		term.Warn(a.err, w)
	}
}

// print writes data.
func (a *app) print(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format, args...)
	return err
}

// lines writes each item on a line of its own.
func (a *app) lines(items []string) error {
	if len(items) == 0 {
		return nil
	}
	_, err := io.WriteString(a.out, strings.Join(items, "\n")+"\n")
	return err
}

// watching is a context that Ctrl-C ends. What the daemon does goes on.
func watching(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// interrupted hears of Ctrl-C until stop.
func interrupted() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	return c, func() { signal.Stop(c) }
}

// umask is what new files are not to be.
func umask() fs.FileMode {
	old := syscall.Umask(0o077)
	syscall.Umask(old)
	return fs.FileMode(old)
}

// goesOn is the answer to Ctrl-C on a watching command; other errors it leaves
// alone.
func (a *app) goesOn(err error, format string, args ...any) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	a.note(format, args...)
	return term.Code(term.ExitInterrupted)
}

// confirm asks before something is destroyed: on a terminal it asks, elsewhere
// it wants --yes.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	stdin := term.Open(a.in, func(string) string { return "" })
	if !stdin.People() || !a.err.People() {
		return &term.Failure{Code: term.ExitUsage, Err: errors.New("this asks first, and there is no terminal to ask on"), Hint: "say --yes: " + a.again("--yes")}
	}
	ok, err := term.Confirm(a.in, a.err, question)
	if err == nil && !ok {
		a.note("nothing is changed")
		return term.Code(term.ExitFailed)
	}
	return err
}

// again is the command as it was called, with more words at its end.
func (a *app) again(more ...string) string {
	words := []string{"wherry"}
	for _, w := range append(slices.Clone(a.args[min(1, len(a.args)):]), more...) {
		if w == "" || strings.ContainsAny(w, " \t\n\"'`$&|;<>()*?[]{}~#\\!") {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// formatFlags adds --format and -q.
type formatFlags struct {
	text  string
	quiet bool
}

func (f *formatFlags) add(c *cobra.Command, quiet string) {
	c.Flags().StringVar(&f.text, "format", "table", "table, json, or a template for each item")
	if quiet != "" {
		c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, quiet)
	}
}

func (f *formatFlags) parse() (term.Format, error) {
	p, err := term.ParseFormat(f.text)
	if err != nil {
		return p, &term.Failure{Code: term.ExitUsage, Err: err}
	}
	return p, nil
}

// durationFlag accepts 90s, 1m30s, and as Docker does a bare number of seconds.
type durationFlag time.Duration

func (d *durationFlag) String() string { return time.Duration(*d).String() }
func (d *durationFlag) Type() string   { return "duration" }

func (d *durationFlag) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil {
		v, err = time.ParseDuration(s + "s")
	}
	if err != nil || v < 0 {
		return errors.New("want a duration such as 30s or 1m30s")
	}
	*d = durationFlag(v)
	return nil
}
