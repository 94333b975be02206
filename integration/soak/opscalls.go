package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// What looks at units, or runs something beside their programs.

// one of the unit's containers, for what needs a single one.
func single(c *cargo, r *rand.Rand) string {
	if c.kind.name == "multi" {
		return c.name + ".1/main"
	}
	return c.name + ".1"
}

func execute(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	code := r.IntN(100)
	word := fmt.Sprint(r.Uint32())
	var out, errs bytes.Buffer
	exit, err := s.h.client.Exec(ctx, api.ExecRequest{Target: single(c, r), Args: []string{"sh", "-c", fmt.Sprintf("echo %s; echo %s >&2; exit %d", word, word, code)}}, &out, &errs)
	if err != nil {
		return err
	}
	return told(c, exit, code, out.String()+errs.String(), strings.Repeat(word+"\n", 2))
}

// errBeforeItBegan is the end of what was on its way into a container when its keeper was killed, whom it
// talks to until the program begins.
var errBeforeItBegan = errors.New("it has ended before its program began")

// told compares what came of a program with what it did.
func told(c *cargo, exit api.Exit, code int, out, want string) error {
	if exit.Code == code && exit.Signal == "" && !exit.Unknown && out == want {
		return nil
	}
	if exit.Signal == "SIGKILL" || exit.Unknown {
		// Its container ended.
		return fmt.Errorf("exit %+v, want code %d: %w", exit, code, api.ErrNotRunning)
	}
	if exit.Signal == "SIGPIPE" && out == "" {
		return fmt.Errorf("exit %+v, want code %d: %w", exit, code, errBeforeItBegan)
	}
	return fmt.Errorf("exit %+v and output %q, want code %d and %q", exit, out, code, want)
}

func storm(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	errs := make([]error, 10)
	var all sync.WaitGroup
	for i := range errs {
		own := rand.New(rand.NewPCG(r.Uint64(), 0))
		all.Go(func() { errs[i] = execute(ctx, s, own, c) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func terminal(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	code := r.IntN(100)
	var out bytes.Buffer
	size := api.Size{Rows: 24, Columns: 80}
	exit, err := s.h.client.ExecStream(ctx, api.ExecRequest{Target: single(c, r), Args: []string{"sh"}, Stdin: true, TTY: true, Size: &size},
		api.Input{Stdin: strings.NewReader(fmt.Sprintf("stty size; exit %d\n", code))}, api.Output{Stdout: &out})
	if err != nil {
		return err
	}
	if !strings.Contains(out.String(), "24 80") {
		return fmt.Errorf("exit %+v, output %q", exit, out.String())
	}
	return told(c, exit, code, "", "")
}

// answerLimit is how long a terminal or a page may take to answer on a loaded machine.
const answerLimit = time.Minute

// attach connects to a container, talks to one with a terminal, and leaves.
func attach(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	if c.kind.name != "tty" {
		leave, cancel := context.WithTimeout(ctx, time.Duration(50+r.IntN(400))*time.Millisecond)
		defer cancel()
		_, err := s.h.client.Attach(leave, api.AttachRequest{Target: single(c, r), NoStdin: true, Tail: r.IntN(30)}, api.Input{}, api.Output{Stdout: io.Discard}, nil)
		if leave.Err() != nil && ctx.Err() == nil {
			return nil
		}
		return err
	}
	word := fmt.Sprint(r.Uint32())
	heard := make(chan struct{})
	in := &talk{say: word + "\n", until: heard, ctx: limited}
	_, err := s.h.client.Attach(limited, api.AttachRequest{Target: single(c, r)}, api.Input{Stdin: in}, api.Output{Stdout: &ear{want: "got " + word, heard: heard}}, nil)
	switch {
	case errors.Is(err, api.ErrDetached):
		return nil
	case limited.Err() != nil && ctx.Err() == nil:
		return fmt.Errorf("no answer of the terminal within %v", answerLimit)
	case err == nil:
		return fmt.Errorf("the terminal's program ended: %w", api.ErrNotRunning)
	}
	return err
}

// talk is an input that says something and leaves once it was heard.
type talk struct {
	say   string
	until <-chan struct{}
	ctx   context.Context
}

func (t *talk) Read(p []byte) (int, error) {
	if t.say != "" {
		n := copy(p, t.say)
		t.say = t.say[n:]
		return n, nil
	}
	select {
	case <-t.until:
		return 0, api.ErrDetached
	case <-t.ctx.Done():
		return 0, io.EOF
	}
}

// ear is an output that waits for a word.
type ear struct {
	want  string
	got   string
	heard chan struct{}
}

func (e *ear) Write(p []byte) (int, error) {
	e.got += string(p)
	if e.want != "" && strings.Contains(e.got, e.want) {
		close(e.heard)
		e.want = ""
	}
	return len(p), nil
}

// copyFiles puts a file into a container and gets it back, and one of its image.
func copyFiles(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	var b bytes.Buffer
	if _, err := s.h.client.CopyFrom(ctx, api.CopyFrom{Target: single(c, r), Path: "/etc/variant", As: "variant"}, &b); err != nil {
		return fmt.Errorf("copy out: %w", err)
	}
	if _, err := tar.NewReader(&b).Next(); err != nil {
		return fmt.Errorf("copy out: %w", err)
	}
	word := fmt.Sprint(r.Uint32())
	b.Reset()
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "soak-" + word, Mode: 0o644, Size: int64(len(word)), Typeflag: tar.TypeReg})
	_, _ = w.Write([]byte(word))
	_ = w.Close()
	// /dev/shm can be written in every container.
	if _, err := s.h.client.CopyTo(ctx, api.CopyTo{Target: single(c, r), Path: "/dev/shm"}, &b); err != nil {
		return fmt.Errorf("copy in: %w", err)
	}
	var out bytes.Buffer
	exit, err := s.h.client.Exec(ctx, api.ExecRequest{Target: single(c, r), Args: []string{"sh", "-c", "cat /dev/shm/soak-" + word + "; rm /dev/shm/soak-" + word}}, &out, io.Discard)
	if err != nil {
		return err
	}
	return told(c, exit, 0, out.String(), word)
}

func logs(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	return s.h.client.Logs(ctx, api.LogsRequest{Target: c.name, Tail: 1 + r.IntN(2000), Previous: r.IntN(4) == 0}, io.Discard, io.Discard)
}

func followLogs(ctx context.Context, s *soak, r *rand.Rand, c *cargo) error {
	leave, cancel := context.WithTimeout(ctx, time.Duration(100+r.IntN(2000))*time.Millisecond)
	defer cancel()
	err := s.h.client.Logs(leave, api.LogsRequest{Target: c.name, Tail: 1 + r.IntN(200), Follow: true}, io.Discard, io.Discard)
	if leave.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

func usage(ctx context.Context, s *soak, _ *rand.Rand, c *cargo) error {
	if _, err := s.h.client.Stats(ctx); err != nil {
		return fmt.Errorf("stats: %w", err)
	}
	_, err := s.h.client.Top(ctx, c.name)
	return err
}

func inspect(ctx context.Context, s *soak, _ *rand.Rand, c *cargo) error {
	if _, err := s.h.client.Unit(ctx, c.name); err != nil {
		return err
	}
	_, err := s.h.client.Exits(ctx, c.name)
	return err
}

// fetchPage asks for a page through the published port.
func fetchPage(ctx context.Context, s *soak, _ *rand.Rand, c *cargo) error {
	u, err := s.h.client.Unit(ctx, c.name)
	if err != nil {
		return err
	}
	if len(u.Ports) != 1 || u.Ports[0].HostPort == 0 {
		return fmt.Errorf("ports %+v", u.Ports)
	}
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(answerLimit / 2); ; time.Sleep(50 * time.Millisecond) {
		var body []byte
		res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", u.Ports[0].HostPort))
		if err == nil {
			body, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		switch {
		case err == nil && string(body) == "served\n":
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			if now, _ := s.h.client.Unit(ctx, c.name); now.State != "running" {
				return fmt.Errorf("%s is %s: %w", c.name, now.State, api.ErrNotRunning)
			}
			return fmt.Errorf("the page: %q, %w", body, err)
		}
	}
}

func pull(ctx context.Context, s *soak, r *rand.Rand, _ *cargo) error {
	name := images[r.IntN(len(images))]
	if r.IntN(2) == 0 {
		if err := s.shelf.retag(name, r.IntN(variants)); err != nil {
			return err
		}
	}
	_, err := s.h.client.Pull(ctx, api.PullRequest{Ref: s.shelf.ref(name), Policy: "always"}, nil, nil)
	return err
}

func removeImage(ctx context.Context, s *soak, r *rand.Rand, _ *cargo) error {
	_, err := s.h.client.RemoveImage(ctx, s.shelf.ref(images[r.IntN(len(images))]), r.IntN(3) == 0)
	return err
}

func collect(ctx context.Context, s *soak, r *rand.Rand, _ *cargo) error {
	_, err := s.h.client.CollectImages(ctx, api.GCRequest{All: r.IntN(2) == 0})
	return err
}

func reload(ctx context.Context, s *soak, r *rand.Rand, _ *cargo) error {
	// Written at one go: another reload may read it.
	next := fmt.Sprintf("%s.%d", s.h.configFile, r.Uint32())
	if err := os.WriteFile(next, fmt.Appendf(nil, config, 5+r.IntN(10)), 0o644); err != nil {
		return err
	}
	if err := os.Rename(next, s.h.configFile); err != nil {
		return err
	}
	_, err := s.h.client.Reload(ctx)
	return err
}

// ctl runs the command line, and gives its output apart.
func (s *soak) ctl(ctx context.Context, args ...string) (code int, stdout, stderr string, err error) {
	c := exec.CommandContext(ctx, s.h.bin+"/wherry", append([]string{"ctl", "--socket", s.h.socket}, args...)...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err = c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String(), err
}

// lost is what a command line says whose daemon goes away.
func lost(code int, stderr string) error {
	return fmt.Errorf("exit code %d: %s: %w", code, strings.TrimSpace(stderr), api.ErrUnreachable)
}

func runOnce(ctx context.Context, s *soak, r *rand.Rand, _ *cargo) error {
	want := r.IntN(120)
	args := []string{"run", "--rm", "--net", []string{"none", "bridge", "host"}[r.IntN(3)], s.shelf.ref(images[r.IntN(len(images))]),
		"sh", "-c", fmt.Sprintf("echo out; echo err >&2; exit %d", want)}
	began := time.Now()
	code, out, errs, err := s.ctl(ctx, args...)
	switch {
	case err != nil:
		return err
	case code == want && out == "out\n" && strings.HasSuffix(errs, "err\n"):
		return nil
	case s.h.troubled(began, time.Now()):
		return lost(code, errs)
	}
	return fmt.Errorf("exit code %d, want %d; stdout %q, stderr %q", code, want, out, errs)
}

func runDetached(ctx context.Context, s *soak, r *rand.Rand, _ *cargo) error {
	name := fmt.Sprintf("run-%d", r.Uint32())
	began := time.Now()
	code, _, errs, err := s.ctl(ctx, "run", "-d", "--name", name, s.shelf.ref(images[r.IntN(len(images))]), "sleep", "1000")
	if err != nil {
		return err
	}
	rerr := s.insist(ctx, func() error {
		_, err := s.h.client.Remove(ctx, api.ActRequest{Units: []string{name}, Force: true})
		if s.h.troubled(began, time.Now()) && errors.Is(err, api.ErrNoSuchUnit) {
			return nil
		}
		return err
	})
	if code != 0 && s.h.troubled(began, time.Now()) {
		return lost(code, errs)
	}
	if code != 0 {
		rerr = fmt.Errorf("exit code %d: %s", code, errs)
	}
	return rerr
}

func wait(ctx context.Context, s *soak, _ *rand.Rand, c *cargo) error {
	_, err := s.h.client.Wait(ctx, api.WaitRequest{Units: []string{c.name}, State: "running", Timeout: unit.Duration(time.Second)})
	return err
}
