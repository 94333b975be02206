package apiserver_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand"
	"strings"
	"sync"
	"testing"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/api/apitest"
)

// waited is output that somebody waits for.
type waited struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func newWaited() *waited { return &waited{changed: make(chan struct{}, 1)} }

func (w *waited) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (w *waited) has(t *testing.T, want string) {
	t.Helper()
	for {
		w.mu.Lock()
		text := w.text.String()
		w.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-w.changed:
		case <-t.Context().Done():
			t.Fatalf("no %q in %q", want, text)
		}
	}
}

// running adds a unit that runs.
func running(t *testing.T, c *api.Client, d *apitest.Daemon, name string) {
	t.Helper()
	if _, _, _, err := run(t, c, api.RunRequest{Unit: service(name, "sleep")}); err != nil {
		t.Fatal(err)
	}
}

func TestExecTakesInput(t *testing.T) {
	d, c := start(t)
	running(t, c, d, "x")
	const size = 100 << 20
	in, out := sha256.New(), sha256.New()
	from := io.TeeReader(io.LimitReader(rand.New(rand.NewSource(1)), size), in)
	exit, err := c.ExecStream(t.Context(), api.ExecRequest{Target: "x", Args: []string{"cat"}, Stdin: true},
		api.Input{Stdin: from}, api.Output{Stdout: out})
	if err != nil || exit.Code != 0 {
		t.Fatalf("%+v, %v", exit, err)
	}
	if !bytes.Equal(in.Sum(nil), out.Sum(nil)) {
		t.Error("what came back is not what was sent")
	}
}

func TestExecWithoutInput(t *testing.T) {
	d, c := start(t)
	running(t, c, d, "x")
	var out, errs bytes.Buffer
	exit, err := c.ExecStream(t.Context(), api.ExecRequest{Target: "x", Args: strings.Fields("echo a ; warn b ; exit 9"), Stdin: true},
		api.Input{Stdin: endless{}}, api.Output{Stdout: &out, Stderr: &errs})
	if err != nil || exit.Code != 9 || out.String() != "a\n" || errs.String() != "b\n" {
		t.Errorf("%+v, %v, %q, %q", exit, err, &out, &errs)
	}
	_, err = c.ExecStream(t.Context(), api.ExecRequest{Target: "x", Args: []string{"nothing"}, TTY: true}, api.Input{}, api.Output{})
	if e := (*api.Error)(nil); !errors.As(err, &e) || e.Code != api.CodeCommandNotFound {
		t.Errorf("no such command: %v", err)
	}
	_, err = c.ExecStream(t.Context(), api.ExecRequest{Target: "y", Args: []string{"cat"}}, api.Input{}, api.Output{})
	if !errors.Is(err, api.ErrNotRunning) && !errors.Is(err, api.ErrNoSuchUnit) {
		t.Errorf("no such unit: %v", err)
	}
}

// endless is input that never comes to an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestExecOnATerminal(t *testing.T) {
	d, c := start(t)
	running(t, c, d, "x")
	out := newWaited()
	keys, type_ := io.Pipe()
	sizes := make(chan api.Size)
	ended := make(chan error, 1)
	go func() {
		_, err := c.ExecStream(t.Context(), api.ExecRequest{Target: "x", Args: []string{"size"}, TTY: true, Stdin: true, Size: &api.Size{Rows: 11, Columns: 22}},
			api.Input{Stdin: keys, Resize: sizes}, api.Output{Stdout: out})
		ended <- err
	}()
	out.has(t, "11 22\r\n")
	sizes <- api.Size{Rows: 33, Columns: 44}
	sizes <- api.Size{Rows: 55, Columns: 66}
	sizes <- api.Size{Rows: 55, Columns: 66} // the one before has been sent: the key comes after it
	io.WriteString(type_, "\n")
	out.has(t, "55 66\r\n")
	io.WriteString(type_, "\n")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestACallerOnATerminalGoes(t *testing.T) {
	d, c := start(t)
	running(t, c, d, "x")
	out := newWaited()
	keys, type_ := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.ExecStream(ctx, api.ExecRequest{Target: "x", Args: []string{"cat"}, TTY: true, Stdin: true},
			api.Input{Stdin: keys}, api.Output{Stdout: out})
		ended <- err
	}()
	io.WriteString(type_, "hello\n")
	out.has(t, "hello\r\n")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// The daemon ends only once the process has: it was hung up.
}

func TestRunTakesInput(t *testing.T) {
	_, c := start(t)
	var out bytes.Buffer
	created := ""
	res, err := c.RunStream(t.Context(), api.RunRequest{Remove: true, Unit: service("x", "sleep")},
		api.Input{Stdin: strings.NewReader("one\ntwo\n")},
		api.RunOutput{Stdout: &out, Created: func(name string) { created = name }})
	if err != nil || res.Exit == nil || res.Exit.Code != 0 || created != "x" {
		t.Fatalf("%+v, %v, %q", res, err, created)
	}
}

func TestDetach(t *testing.T) {
	d, c := start(t)
	out := newWaited()
	keys, type_ := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := c.RunStream(t.Context(), api.RunRequest{Unit: service("x", "sleep")}, api.Input{Stdin: keys}, api.RunOutput{Stdout: out})
		ended <- err
	}()
	io.WriteString(type_, "one\n")
	out.has(t, "one\n")
	type_.CloseWithError(api.ErrDetached)
	if err := <-ended; !errors.Is(err, api.ErrDetached) {
		t.Error(err)
	}
	if u := d.Units(); len(u) != 1 || u[0].Running != 1 {
		t.Errorf("units %+v", u)
	}
}

func TestAttachByTwo(t *testing.T) {
	d, c := start(t)
	running(t, c, d, "x")
	outs := []*waited{newWaited(), newWaited()}
	typists := make([]*io.PipeWriter, 2)
	ended := make(chan error, 2)
	for i, out := range outs {
		var keys *io.PipeReader
		keys, typists[i] = io.Pipe()
		began := make(chan api.Attached, 1)
		go func() {
			exit, err := c.Attach(t.Context(), api.AttachRequest{Target: "x"}, api.Input{Stdin: keys}, api.Output{Stdout: out},
				func(a api.Attached) { began <- a })
			if err == nil && exit.Code != 0 {
				err = errors.New("an exit code")
			}
			ended <- err
		}()
		if a := <-began; a.Instance != "x.1" || !a.Stdin || a.TTY {
			t.Errorf("%+v", a)
		}
	}
	io.WriteString(typists[0], "one\n")
	io.WriteString(typists[1], "two\n")
	for _, out := range outs {
		out.has(t, "one\n")
		out.has(t, "two\n")
	}
	typists[0].Close()
	for range outs {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestSignalOfACaller(t *testing.T) {
	d, c := start(t)
	running(t, c, d, "x")
	signals := make(chan string, 1)
	signals <- "SIGINT"
	exit, err := c.Attach(t.Context(), api.AttachRequest{Target: "x", NoStdin: true}, api.Input{Signal: signals}, api.Output{}, nil)
	if err != nil || exit.Signal != "SIGINT" {
		t.Errorf("%+v, %v", exit, err)
	}
}
