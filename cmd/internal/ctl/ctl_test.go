package ctl

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
)

func TestAgainIsWhatWasTyped(t *testing.T) {
	a := &app{args: []string{"/usr/bin/wherry", "ctl", "rm", "a b", "it's", "web-*", ""}}
	if got, want := a.again("--yes"), `wherry ctl rm 'a b' 'it'\''s' 'web-*' '' --yes`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		exit api.Exit
		code int
	}{
		{api.Exit{}, 0}, {api.Exit{Code: 7}, 7}, {api.Exit{Signal: "SIGKILL"}, 137}, {api.Exit{Signal: "SIGTERM"}, 143},
		{api.Exit{Unknown: true}, 255},
	} {
		if got := exitCode(c.exit); got != c.code {
			t.Errorf("%+v: %d, want %d", c.exit, got, c.code)
		}
	}
}

func TestFailures(t *testing.T) {
	a := &app{args: []string{"wherry", "ctl", "start", "web"}, socket: DefaultSocket}
	for name, c := range map[string]struct {
		err  error
		code int
		text string
		hint string
	}{
		"no such unit": {&api.Error{Code: api.CodeNotFound, Message: "no such unit: web"}, 4, "cannot start web: no such unit: web", "list"},
		"own words":    {&api.Error{Code: api.CodeInternal, Message: "unit web: container app: network: port 80: address already in use"}, 1, "cannot start web: container app: network: port 80: address already in use", ""},
		"forbidden":    {&api.Error{Code: api.CodeForbidden, Message: "alice may only read"}, 1, "cannot start web: alice may only read", "sudo wherry ctl start web"},
		"socket":       {&api.UnreachableError{Socket: "/s", Err: fs.ErrPermission}, 5, "cannot start web: daemon at /s: permission denied", "sudo wherry ctl start web"},
		"down":         {&api.UnreachableError{Socket: "/s", Err: fs.ErrNotExist}, 5, "cannot start web: daemon at /s: file does not exist", "start it: "},
		"hint":         {&api.Error{Code: api.CodeConflict, Message: "no", Hint: "do that"}, 1, "cannot start web: no", "do that"},
		"timeout":      {&api.Error{Code: api.CodeTimeout, Message: "timed out"}, 124, "cannot start web: timed out", ""},
		"not running":  {&api.Error{Code: api.CodeNotRunning, Message: "not running"}, 3, "cannot start web: not running", "wherry ctl status web"},
	} {
		var f *term.Failure
		err := a.cannot("start", "web", c.err)
		if !errors.As(err, &f) || f.Code != c.code || err.Error() != c.text || !strings.Contains(f.Hint, c.hint) || c.hint == "" && f.Hint != "" {
			t.Errorf("%s: %d %q, hint %q", name, f.Code, err, f.Hint)
		}
		if !errors.Is(err, c.err) {
			t.Errorf("%s: the cause is lost", name)
		}
	}
	var f *term.Failure
	if err := a.cannotOurs("run", "x", &api.Error{Code: api.CodeNotFound, Message: "no"}); !errors.As(err, &f) || f.Code != term.ExitOurs {
		t.Errorf("run: %v", err)
	}
}

func TestDockerStatus(t *testing.T) {
	now := time.Now()
	exit := &api.Exit{Code: 3, At: now.Add(-time.Minute)}
	for want, u := range map[string]api.Unit{
		"Up 3 seconds": {State: plan.StateRunning, Replicas: 1, Running: 1,
			Instances: []api.Instance{{State: plan.StateRunning, StartedAt: now.Add(-3 * time.Second)}}},
		"Up 3 seconds (1/2)": {State: plan.StateDegraded, Replicas: 2, Running: 1,
			Instances: []api.Instance{{State: plan.StateBackoff}, {State: plan.StateRunning, StartedAt: now.Add(-3 * time.Second)}}},
		"Exited (3) 1 minute ago":     {State: plan.StateFailed, Instances: []api.Instance{{State: plan.StateFailed, Exit: exit}}},
		"Restarting (3) 1 minute ago": {State: plan.StateBackoff, Instances: []api.Instance{{State: plan.StateBackoff, Exit: exit}}},
		"Created (backoff)":           {State: plan.StateBackoff, Instances: []api.Instance{{State: plan.StateBackoff}}},
		"Created":                     {State: plan.StatePulling},
		"Stopping":                    {State: plan.StateStopping, Instances: []api.Instance{{State: plan.StateStopping}}},
	} {
		if got := dockerStatus(u, now); got != want {
			t.Errorf("%+v: %s, want %s", u, got, want)
		}
	}
}

func TestSplitName(t *testing.T) {
	for name, want := range map[string][2]string{
		"docker.io/library/nginx:1.27": {"docker.io/library/nginx", "1.27"},
		"127.0.0.1:5000/a/b":           {"127.0.0.1:5000/a/b", "latest"},
		"r.io/a@sha256:abc":            {"r.io/a", "<none>"},
	} {
		if repository, tag := splitName(name); repository != want[0] || tag != want[1] {
			t.Errorf("%s: %s %s", name, repository, tag)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"5": 5 * time.Second, "1m30s": 90 * time.Second, "0": 0} {
		var d durationFlag
		if err := d.Set(text); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "soon", "-5"} {
		if new(durationFlag).Set(text) == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestLinesOfSeveralInstances(t *testing.T) {
	var out strings.Builder
	p := &linePrinter{out: term.Stream{Writer: &out}, prefix: true}
	for _, l := range []api.LogLine{
		{Instance: "a.1", Stream: "stdout", Partial: true, Text: []byte("half ")},
		{Instance: "b.1", Stream: "stdout", Text: []byte("between")},
		{Instance: "a.1", Stream: "stdout", Text: []byte("whole")},
		{Instance: "a.1", Stream: "stdout", Partial: true, Text: []byte("the ")},
		{Instance: "a.1", Stream: "stdout", Partial: true, Text: []byte("end")},
	} {
		if err := p.print(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	if want := "b.1 | between\na.1 | half whole\na.1 | the end\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestWhyDown(t *testing.T) {
	a := &app{}
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	unit := func(i ...api.Instance) api.Unit {
		return api.Unit{Name: "web", State: "backoff", Reason: i[0].Reason, Instances: i}
	}
	failed := api.Instance{Name: "web.1", State: "backoff", Error: `process: exec "x": command not found`, NextTry: at, Attempt: 4,
		Reason: `process: exec "x": command not found; next try 833ms later, attempt 4`}
	crashed := api.Instance{Name: "web.2", State: "backoff", NextTry: at, Attempt: 1, Exit: &api.Exit{Code: 1},
		Reason: "exited with code 1 12ms after its start; next try 100ms later, attempt 1"}
	const noCommand = `container web.1: process: exec "x": command not found; next try at 2027-01-02T03:04:05Z, attempt 4`
	for want, u := range map[string]api.Unit{
		noCommand: unit(failed),
		noCommand + "; container web.2: exited with code 1 12ms after its start; next try at 2027-01-02T03:04:05Z, attempt 1": unit(failed, crashed),
		"starting": {Name: "web", State: "starting", Instances: []api.Instance{{Name: "web.1", State: "starting"}}},
	} {
		if got := a.whyDown(u, at.Add(-time.Second)); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	if got := downHint(unit(failed)); !strings.Contains(got, "ctl status web") || strings.Contains(got, "logs") {
		t.Errorf("without any output: %s", got)
	}
	if got := downHint(unit(crashed)); !strings.Contains(got, "ctl logs web") {
		t.Errorf("with output: %s", got)
	}
}

// TestPausedInDockersWords: what is paused is listed as running, as Docker has it.
func TestPausedInDockersWords(t *testing.T) {
	now := time.Now()
	u := api.Unit{Name: "web", State: statePaused, Running: 1, Replicas: 1,
		Instances: []api.Instance{{Name: "web.1", State: statePaused, Pid: 7, StartedAt: now.Add(-time.Minute)}}}
	if s := dockerStatus(u, now); s != "Up 1 minute (Paused)" {
		t.Errorf("status %q", s)
	}
	if s := newInspectState(u, &u.Instances[0]); s.Status != "paused" || !s.Paused || !s.Running || s.Pid != 7 {
		t.Errorf("state %+v", s)
	}
}

func TestCompletionOfTargets(t *testing.T) {
	units := []api.Unit{
		{Name: "web", Instances: []api.Instance{{Name: "web.1", Containers: []api.Container{{Name: "app"}}}, {Name: "web.2"}}},
		{Name: "web-shop", Instances: []api.Instance{{Name: "web-shop.1", Containers: []api.Container{{Name: "log"}, {Name: "nginx"}}}}},
	}
	for text, want := range map[string]string{
		"": "web web-shop", "web-": "web-shop", "web.": "web.1 web.2", "web.1/": "web.1/app", "web-shop/": "web-shop/log web-shop/nginx",
		"web-shop.1/n": "web-shop.1/nginx", "db": "",
	} {
		if got := strings.Join(targets(units, text), " "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestNoCopyOverADevice(t *testing.T) {
	null := &api.FileInfo{Name: "null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666}
	if _, _, err := destination("/dev/null", null, "/etc/hosts", false); err == nil || !strings.Contains(err.Error(), "is not replaced") {
		t.Errorf("got %v", err)
	}
}
