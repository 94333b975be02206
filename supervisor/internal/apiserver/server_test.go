package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/api/apitest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// start serves a pretended daemon over a real socket.
func start(t *testing.T) (*apitest.Daemon, *api.Client) {
	t.Helper()
	d, socket := serve(t)
	c := api.Dial(socket)
	t.Cleanup(c.Close)
	return d, c
}

func serve(t *testing.T) (*apitest.Daemon, string) {
	t.Helper()
	d := apitest.New()
	dir, err := os.MkdirTemp("", "whctl") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.ListenAndServe(ctx, socket) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Stat(socket); err == nil {
			t.Error("the socket is left behind")
		}
		os.RemoveAll(dir)
	})
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return d, socket
		}
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
}

func service(name string, command ...string) unit.Unit {
	return unit.Unit{Kind: unit.Service, Name: name, Replicas: 1, Network: "bridge",
		Containers: []unit.Container{{Name: "app", Image: "img", Command: command}}}
}

func run(t *testing.T, c *api.Client, r api.RunRequest) (stdout, stderr string, res api.RunResult, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	res, err = c.Run(context.Background(), r, api.RunOutput{Stdout: &out, Stderr: &errs})
	return out.String(), errs.String(), res, err
}

func TestRunInTheForeground(t *testing.T) {
	d, c := start(t)
	stdout, stderr, res, err := run(t, c, api.RunRequest{Attach: true, Remove: true,
		Unit: service("x", strings.Fields("print a ; echo b ; warn no ; print end ; exit 7")...)})
	if err != nil {
		t.Fatal(err)
	}
	if stdout != "ab\nend" || stderr != "no\n" {
		t.Errorf("output %q, %q", stdout, stderr)
	}
	if res.Unit != "x" || res.Exit == nil || res.Exit.Code != 7 {
		t.Errorf("result %+v", res)
	}
	if n := len(d.Units()); n != 0 {
		t.Errorf("--rm left %d units", n)
	}
}

func TestRunDetached(t *testing.T) {
	d, c := start(t)
	_, _, res, err := run(t, c, api.RunRequest{Unit: service("", "sleep")})
	if err != nil || res.Unit != "unit-1" || res.Exit != nil {
		t.Fatalf("%+v, %v", res, err)
	}
	if u := d.Units(); len(u) != 1 || u[0].Running != 1 {
		t.Errorf("units %+v", u)
	}
	want := fmt.Sprintf("(uid %d, pid %d)", os.Geteuid(), os.Getpid())
	if calls := d.Calls(); len(calls) != 1 || !strings.Contains(calls[0], want) {
		t.Errorf("calls %q: no %q", calls, want)
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	d, c := start(t)
	d.Add(api.UnitDetail{Unit: api.Unit{Name: "web-1"}})
	d.Add(api.UnitDetail{Unit: api.Unit{Name: "web-2"}})
	ctx := context.Background()
	for name, k := range map[string]struct {
		call func() error
		code string
		is   error
	}{
		"no such unit": {func() error { _, err := c.Unit(ctx, "nope"); return err }, api.CodeNotFound, api.ErrNoSuchUnit},
		"ambiguous":    {func() error { _, err := c.Unit(ctx, "web"); return err }, api.CodeAmbiguous, api.ErrAmbiguous},
		"not running": {func() error {
			_, err := c.Exec(ctx, api.ExecRequest{Target: "web-1", Args: []string{"x"}}, nil, nil)
			return err
		}, api.CodeNotRunning, api.ErrNotRunning},
		"no command":        {func() error { _, err := c.Exec(ctx, api.ExecRequest{Target: "web-1"}, nil, nil); return err }, api.CodeInvalid, api.ErrInvalid},
		"exists":            {func() error { _, _, _, err := run(t, c, api.RunRequest{Unit: service("web-1")}); return err }, api.CodeConflict, api.ErrExists},
		"command not found": {func() error { _, _, _, err := run(t, c, api.RunRequest{Unit: service("a", "nothing")}); return err }, api.CodeCommandNotFound, nil},
		"not executable":    {func() error { _, _, _, err := run(t, c, api.RunRequest{Unit: service("a", "folder")}); return err }, api.CodeNotExecutable, nil},
		"no such image":     {func() error { _, err := c.Image(ctx, "nope"); return err }, api.CodeImageNotFound, api.ErrNoSuchImage},
		"pull":              {func() error { _, err := c.Pull(ctx, api.PullRequest{Ref: "missing"}, nil, nil); return err }, api.CodeImageNotFound, api.ErrNoSuchImage},
		"platform":          {func() error { _, err := c.Pull(ctx, api.PullRequest{Ref: "a", Platform: "arm"}, nil, nil); return err }, api.CodeInvalid, api.ErrInvalid},
		"timeout":           {func() error { return waitRunning(c, 20*time.Millisecond) }, api.CodeTimeout, api.ErrTimeout},
		"nothing named":     {func() error { _, err := c.Start(ctx, api.ActRequest{}); return err }, api.CodeInvalid, api.ErrInvalid},
		"invalid unit": {func() error {
			_, err := c.Apply(ctx, api.ApplyRequest{Files: []api.File{{Source: "/a/bad.yaml", Text: "imag: x\n"}}})
			return err
		}, api.CodeInvalid, api.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			err := k.call()
			var e *api.Error
			if !errors.As(err, &e) || e.Code != k.code || e.Message == "" {
				t.Fatalf("error %#v, want code %s", err, k.code)
			}
			if k.is != nil && !errors.Is(err, k.is) {
				t.Errorf("%v is not %v", err, k.is)
			}
		})
	}
}

func waitRunning(c *api.Client, d time.Duration) error {
	_, err := c.Wait(context.Background(), api.WaitRequest{Units: []string{"web-1"}, State: "running", Timeout: unit.Duration(d)})
	return err
}

func TestExecOutputComesBeforeTheExit(t *testing.T) {
	d, c := start(t)
	d.Add(api.UnitDetail{Unit: api.Unit{Name: "web", Running: 1, Instances: []api.Instance{{Name: "web.1"}}}})
	for range 50 {
		var out, errs bytes.Buffer
		e, err := c.Exec(context.Background(), api.ExecRequest{Target: "we", Args: strings.Fields("echo a ; warn b ; print c ; kill SIGTERM")}, &out, &errs)
		if err != nil || e.Signal != "SIGTERM" || out.String() != "a\nc" || errs.String() != "b\n" {
			t.Fatalf("%+v %v, output %q %q", e, err, out.String(), errs.String())
		}
	}
}

func TestFollowedLogsComeAtOnce(t *testing.T) {
	d, c := start(t)
	_, _, _, err := run(t, c, api.RunRequest{Unit: service("web", strings.Fields("echo one ; sleep")...)})
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := c.Logs(context.Background(), api.LogsRequest{Target: "web", Follow: true}, w, io.Discard)
		w.Close()
		done <- err
	}()
	buf := make([]byte, 100)
	for _, want := range []string{"one\n", "two\n", "three\n"} {
		n, err := r.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		switch want {
		case "one\n":
			d.Write("web", "two\n")
		case "two\n":
			d.Write("web", "three\n")
		}
	}
	d.End("web", api.Exit{Code: 1})
	if err := <-done; err != nil {
		t.Errorf("the end of the unit is no error: %v", err)
	}
}

// A stream of many records is whole and in order, whatever was merged.
func TestManyLines(t *testing.T) {
	d, c := start(t)
	var lines []api.LogLine
	var want strings.Builder
	for n := range 50_000 {
		text := fmt.Sprintf("line %d", n)
		lines = append(lines, api.LogLine{Unit: "web", Instance: "web.1", Stream: "stdout", Time: time.Now(), Text: []byte(text)})
		want.WriteString(text + "\n")
	}
	d.Add(api.UnitDetail{Unit: api.Unit{Name: "web", State: "stopped"}}, lines...)
	var out bytes.Buffer
	if err := c.Logs(context.Background(), api.LogsRequest{Target: "web"}, &out, nil); err != nil {
		t.Fatal(err)
	}
	if out.String() != want.String() {
		t.Errorf("%d bytes, want %d", out.Len(), want.Len())
	}
	n := 0
	for l, err := range c.LogLines(context.Background(), api.LogsRequest{Target: "web", Tail: 10}) {
		if err != nil || l.Instance != "web.1" {
			t.Fatal(l, err)
		}
		n++
	}
	if n != 10 {
		t.Errorf("%d records, want 10", n)
	}
}

// The end of a stream that does not follow comes while the last batch is on its
// way.
func TestEventsWithoutFollow(t *testing.T) {
	d, c := start(t)
	for range 20 {
		d.AddEvent(api.Event{Type: "start", Message: strings.Repeat("x", 5000)})
	}
	for range 200 {
		n := 0
		for _, err := range c.Events(context.Background(), 0, false) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 20 {
			t.Fatalf("%d events, want 20", n)
		}
	}
}

func TestPullProgress(t *testing.T) {
	_, c := start(t)
	var steps []string
	i, err := c.Pull(context.Background(), api.PullRequest{Ref: "nginx"}, nil, func(p api.Progress) { steps = append(steps, p.Step) })
	if err != nil || i.Names[0] != "nginx" {
		t.Fatal(i, err)
	}
	if got := strings.Join(steps, " "); got != "resolve exists fetch unpack done done" {
		t.Errorf("steps %q", got)
	}
}

func TestRemoveImageByID(t *testing.T) {
	d, c := start(t)
	d.AddImage(api.Image{Names: []string{"a:1", "a:2"}, ConfigID: "sha256:aaaaaaaaaaaaaaaaaaaa", Digest: "sha256:bbbb", Size: 5})
	ctx := context.Background()
	_, err := c.RemoveImage(ctx, "aaaaaaaaaaaa", false)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeConflict || e.Hint == "" {
		t.Fatalf("several names: %v", err)
	}
	r, err := c.RemoveImage(ctx, "aaaaaaaaaaaa", true)
	if err != nil || len(r.Untagged) != 2 || len(r.Deleted) != 1 || r.Freed != 5 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A caller that goes away leaves the unit; --rm still counts at its end.
func TestRunGoesOnWithoutItsCaller(t *testing.T) {
	d, c := start(t)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := c.Run(ctx, api.RunRequest{Attach: true, Remove: true, Unit: service("x", "sleep")},
		api.RunOutput{Created: func(string) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if len(d.Units()) != 1 {
		t.Fatal("the unit is gone")
	}
	d.End("x", api.Exit{})
	for deadline := time.Now().Add(time.Minute); len(d.Units()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the unit is not removed at its end")
		}
	}
}

// raw makes a call that the client would not make.
func raw(t *testing.T, socket, method, path, body string) (int, api.Error) {
	t.Helper()
	hc := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer hc.CloseIdleConnections()
	do := func() (*http.Response, error) {
		req, _ := http.NewRequest(method, "http://x"+path, strings.NewReader(body))
		return hc.Do(req)
	}
	res, err := do()
	// net/http closes the connection half a second after an answer to a body that it does not read: who has not come to read the
	// answer by then, and still sends, may hear of a broken pipe instead.
	for tries := 0; errors.Is(err, unix.EPIPE) && tries < 10; tries++ {
		res, err = do()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var e api.Error
	_ = json.NewDecoder(res.Body).Decode(&e)
	return res.StatusCode, e
}

func TestBadRequests(t *testing.T) {
	_, socket := serve(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		message            string
	}{
		{"POST", "/v1/run", "{", 400, "unexpected EOF"},
		{"POST", "/v1/run", `{"unti":{}}`, 400, "unti"},
		{"POST", "/v1/run", `{} {}`, 400, "more than one"},
		{"POST", "/v1/apply", `{"files":[{"text":"` + strings.Repeat("x", 17<<20) + `"}]}`, 400, "more than 16777216 bytes"},
		{"GET", "/v1/logs?target=", "", 400, "target"},
		{"GET", "/v1/logs?target=x&tail=-1", "", 400, "tail"},
		{"GET", "/v1/logs?target=x&since=yesterday", "", 400, "since"},
		{"GET", "/v1/events?since=x", "", 400, "since"},
		{"GET", "/v2/info", "", 400, "no such call"},
	} {
		status, e := raw(t, socket, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(e.Message, c.message) {
			t.Errorf("%s %s: %d %+v, want %d with %q", c.method, c.path, status, e, c.status, c.message)
		}
	}
}

func TestUnreachable(t *testing.T) {
	c := api.Dial("/nonexistent/wherry.sock")
	_, err := c.Info(context.Background())
	if !errors.Is(err, api.ErrUnreachable) || !strings.Contains(err.Error(), "/nonexistent/wherry.sock") {
		t.Errorf("error %v", err)
	}
}

func TestAFailedStartSaysWhichStep(t *testing.T) {
	_, c := start(t)
	_, _, _, err := run(t, c, api.RunRequest{Unit: service("a", "nothing"), Attach: true})
	if want := "unit a: container app: " + string(runtime.StepProcess) + ": nothing: command not found"; err == nil || err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}
