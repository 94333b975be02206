package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	xterm "golang.org/x/term"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// interactiveFlags are -i and -t, which hands type by themselves, and how to leave.
type interactiveFlags struct {
	stdin, tty bool
	detachKeys string
}

// defaultDetachKeys are Docker's.
const defaultDetachKeys = "ctrl-p,ctrl-q"

func (f *interactiveFlags) add(c *cobra.Command) {
	c.Flags().BoolVarP(&f.stdin, "interactive", "i", false, "pass our input on")
	c.Flags().BoolVarP(&f.tty, "tty", "t", false, "on a terminal of its own")
	f.addKeys(c)
}

func (f *interactiveFlags) addKeys(c *cobra.Command) {
	c.Flags().StringVar(&f.detachKeys, "detach-keys", defaultDetachKeys, "`KEYS` that leave a terminal and let it go on, such as ctrl-x,x; empty: none")
}

// console is our terminal, or whatever our input is, during a stream.
type console struct {
	in     *os.File
	keys   []byte
	typed  bool         // a person types what we send
	raw    *xterm.State // what to go back to; nil: it is not raw
	resize chan api.Size
	back   func() // undoes it all, once

	mu sync.Mutex // raw
}

// console prepares our side of a stream; back must be called on every way out.
func (a *app) console(f interactiveFlags) (*console, error) {
	keys, err := parseKeys(f.detachKeys)
	if err != nil {
		return nil, &term.Failure{Code: term.ExitOurs, Err: fmt.Errorf("--detach-keys: %w", err)}
	}
	c := &console{in: a.in, keys: keys}
	isTTY := isTerminal(a.in)
	if f.tty && f.stdin && !isTTY {
		return nil, &term.Failure{Code: term.ExitOurs, Err: errors.New("the input device is not a TTY"),
			Hint: "leave -t out where the input is a pipe or a file"}
	}
	c.back = sync.OnceFunc(c.restore)
	if !f.tty {
		return c, nil
	}
	c.resize = make(chan api.Size, 1)
	c.typed = f.stdin
	return c, nil
}

// begin makes a terminal raw, so that every key gets to the other one.
func (c *console) begin() {
	if !c.typed {
		return
	}
	if raw, err := xterm.MakeRaw(int(c.in.Fd())); err == nil { // else it has just gone
		c.mu.Lock()
		c.raw = raw
		c.mu.Unlock()
	}
}

func (c *console) restore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.raw != nil {
		_ = xterm.Restore(int(c.in.Fd()), c.raw)
	}
}

// size is our terminal's; nil if there is none.
func (c *console) size(a *app) *api.Size {
	for _, f := range []*os.File{a.in, os.Stdout, os.Stderr} {
		if w, h, err := xterm.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return &api.Size{Rows: uint16(h), Columns: uint16(w)}
		}
	}
	return nil
}

// watchSize passes changes of our terminal's size on until stop.
func (c *console) watchSize(a *app) (stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	ended := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-changed:
			}
			size := c.size(a)
			if size == nil {
				continue
			}
			select {
			case <-c.resize: // an older one that nobody has taken
			default:
			}
			c.resize <- *size
		}
	})
	return func() {
		signal.Stop(changed)
		close(ended)
		all.Wait()
	}
}

// input is what is sent. Detach keys count only where a terminal sends them.
func (c *console) input(f interactiveFlags) api.Input {
	in := api.Input{}
	if c.resize != nil {
		in.Resize = c.resize
	}
	switch {
	case !f.stdin:
	case c.typed:
		in.Stdin = &keyReader{from: c.in, keys: c.keys}
	default:
		in.Stdin = c.in
	}
	return in
}

// ending is a context that ends when we are told to, so that the terminal can be put back first.
func (c *console) ending(ctx context.Context, on ...os.Signal) (context.Context, func() os.Signal) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, append(on, syscall.SIGHUP, syscall.SIGQUIT)...)
	ended := make(chan struct{})
	var got os.Signal
	var all sync.WaitGroup
	all.Go(func() {
		select {
		case got = <-signals:
			cancel()
		case <-ended:
		}
	})
	return ctx, func() os.Signal {
		signal.Stop(signals)
		close(ended)
		all.Wait()
		cancel()
		return got
	}
}

// keyReader gives what is typed until the keys to leave come.
type keyReader struct {
	from io.Reader
	keys []byte
	held int    // how many of the keys have come
	rest []byte // read, not yet given
	left bool   // all of the keys have come
}

// Read holds the keys back that may be the beginning of leaving; if they turn out not to be,
// they are sent after all.
func (r *keyReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.left {
			return 0, api.ErrDetached
		}
		buf := make([]byte, max(1, min(len(p), 32<<10)))
		n, err := r.from.Read(buf)
		r.left = r.filter(buf[:n])
		if err != nil && len(r.rest) == 0 && !r.left {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *keyReader) filter(typed []byte) (left bool) {
	for _, b := range typed {
		if len(r.keys) > 0 && b == r.keys[r.held] {
			if r.held++; r.held == len(r.keys) {
				return true
			}
			continue
		}
		r.rest = append(r.rest, r.keys[:r.held]...)
		if r.held = 0; len(r.keys) > 0 && b == r.keys[0] {
			r.held = 1
			if len(r.keys) == 1 {
				return true
			}
			continue
		}
		r.rest = append(r.rest, b)
	}
	return false
}

// parseKeys reads Docker's form: single characters and ctrl-X, parted by commas.
func parseKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	var keys []byte
	for word := range strings.SplitSeq(text, ",") {
		name, ctrl := strings.CutPrefix(strings.ToLower(word), "ctrl-")
		switch {
		case !ctrl && len(word) == 1:
			keys = append(keys, word[0])
		case ctrl && len(name) == 1 && (name[0] >= 'a' && name[0] <= 'z'):
			keys = append(keys, name[0]-'a'+1)
		case ctrl && len(name) == 1 && strings.Contains(`@[\]^_`, name):
			keys = append(keys, name[0]-'@')
		default:
			return nil, fmt.Errorf("%q is no key: write a character or ctrl- and a letter", word)
		}
	}
	return keys, nil
}

// withTerm adds our kind of terminal, unless env says one.
func withTerm(env []string, tty bool) []string {
	kind := os.Getenv("TERM")
	if !tty || kind == "" {
		return env
	}
	for _, e := range env {
		if strings.HasPrefix(e, "TERM=") {
			return env
		}
	}
	return append([]string{"TERM=" + kind}, env...)
}

// left is the end of a stream on our side alone: by the keys, or by a signal.
func (a *app) left(err error, sig os.Signal, what string) error {
	switch s, _ := sig.(syscall.Signal); {
	case errors.Is(err, api.ErrDetached):
		a.note("detached; %s goes on", what)
		return nil
	case sig != nil:
		return term.Code(128 + int(s))
	}
	return err
}

func isTerminal(f *os.File) bool { return xterm.IsTerminal(int(f.Fd())) }
