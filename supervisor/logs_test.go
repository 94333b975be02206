package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

func (d *daemon) logs(r api.LogsRequest) []string {
	d.t.Helper()
	var lines []string
	for l, err := range d.Logs(d.t.Context(), r) {
		if err != nil {
			d.t.Fatal(err)
		}
		lines = append(lines, l.Instance+" "+string(l.Text))
	}
	return lines
}

// chatty are containers that say two lines, and end after a while.
func chatty(runsFor time.Duration) func(c runtime.Config, n int) supervisortest.Script {
	return func(c runtime.Config, n int) supervisortest.Script {
		return supervisortest.Script{RunsFor: runsFor, Output: []string{fmt.Sprintf("run %d", n), "ready"}}
	}
}

// talking is a daemon whose unit web has this many instances, which have said what they say and run on.
func talking(t *testing.T, replicas int) *daemon {
	t.Helper()
	_, w, o := realDaemon(t)
	w.Runtime.Script = chatty(0)
	d := begin(t, o)
	d.apply(fmt.Sprintf("%sreplicas: %d\n", web, replicas))
	until(t, d, "running", func() bool { return d.find("web").Running == replicas })
	return d
}

func TestLogsMergeAndTail(t *testing.T) {
	d := talking(t, 3)
	defer d.end()
	all := d.logs(api.LogsRequest{Target: "web"})
	if len(all) != 6 {
		t.Fatalf("%q", all)
	}
	if got := d.logs(api.LogsRequest{Target: "web", Tail: 2}); !slices.Equal(got, all[4:]) {
		t.Errorf("tail %q of %q", got, all)
	}
	if got := d.logs(api.LogsRequest{Target: "web.2"}); !slices.Equal(got, []string{"web.2 run 1", "web.2 ready"}) {
		t.Errorf("one instance: %q", got)
	}
	if got := d.logs(api.LogsRequest{Target: "we", Tail: 1}); len(got) != 1 {
		t.Errorf("by prefix: %q", got)
	}
	for _, err := range d.Logs(t.Context(), api.LogsRequest{Target: "nobody"}) {
		mustIs(t, err, ErrNoSuchUnit)
	}
	// A consumer that stops early leaves nothing behind.
	for range d.Logs(t.Context(), api.LogsRequest{Target: "web", Follow: true}) {
		break
	}
	for range d.Logs(t.Context(), api.LogsRequest{Target: "web"}) {
		break
	}
}

func TestFollowEndsWithTheUnit(t *testing.T) {
	for _, replicas := range []int{1, 2} {
		_, w, o := realDaemon(t)
		w.Runtime.Script = chatty(100 * time.Millisecond)
		d := begin(t, o)
		d.apply(fmt.Sprintf("%sreplicas: %d\nrestart: \"no\"\n", web, replicas))
		got := d.logs(api.LogsRequest{Target: "web", Follow: true})
		if len(got) != 2*replicas {
			t.Errorf("%d replicas: %q", replicas, got)
		}
		d.end()
	}
}

// TestFollowSeesLaterInstances: an instance that a later revision adds is
// followed, without what an earlier one of its name had written.
func TestFollowSeesLaterInstances(t *testing.T) {
	for _, replicas := range []int{1, 2} {
		d := talking(t, 3)
		d.apply(fmt.Sprintf("%sreplicas: %d\n", web, replicas))
		until(t, d, "fewer", func() bool { u := d.find("web"); return u.Running == replicas && len(u.Instances) == replicas })
		ctx, cancel := context.WithTimeout(t.Context(), forbearance)
		var got []string
		for l, err := range d.Logs(ctx, api.LogsRequest{Target: "web", Follow: true, Tail: 1}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, l.Instance+" "+string(l.Text))
			if len(got) == 1 {
				d.apply(web + "replicas: 3\nlabels: {again: \"yes\"}\n")
			}
			if l.Instance == "web.3" && string(l.Text) == "ready" {
				break
			}
		}
		cancel()
		if !slices.Contains(got, "web.3 run 2") || slices.Contains(got, "web.3 run 1") {
			t.Errorf("%d replicas: %q", replicas, got)
		}
		d.end()
	}
}

// TestFollowSeesWhatCameAndEnded: an instance that came and ended while earlier output was being taken is followed.
func TestFollowSeesWhatCameAndEnded(t *testing.T) {
	d := talking(t, 2)
	defer d.end()
	var got []string
	for l, err := range d.Logs(t.Context(), api.LogsRequest{Target: "web", Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, l.Instance+" "+string(l.Text)); len(got) > 1 {
			continue
		}
		d.apply(web + "replicas: 3\n")
		until(t, d, "one more", func() bool { return d.find("web").Running == 3 })
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Contains(got, "web.3 ready") {
		t.Errorf("%q", got)
	}
}

// Output that is being read is not removed with a `run --rm`.
func TestReadersHoldAutoRemove(t *testing.T) {
	_, w, o := realDaemon(t)
	w.Runtime.Script = chatty(0)
	d := begin(t, o)
	defer d.end()
	name, err := d.RunUnit(t.Context(), api.RunRequest{Unit: runDef(), Remove: true}, "tester", nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for l, err := range d.Logs(t.Context(), api.LogsRequest{Target: name, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 1 { // it ends only now: before it was read, it could be removed at once
			w.Runtime.End(name+".1", runtime.Exit{})
			until(t, d, "the end", func() bool { return d.find(name).Running == 0 })
			time.Sleep(300 * time.Millisecond)
			if d.find(name).Name == "" {
				t.Error("removed while it was read")
			}
		}
		_ = l
	}
	if n != 2 {
		t.Errorf("%d lines", n)
	}
	until(t, d, "removed", func() bool { return d.find(name).Name == "" })
}

func TestEventsFollow(t *testing.T) {
	_, _, o := realDaemon(t)
	d := begin(t, o)
	defer d.end()
	ctx, cancel := context.WithTimeout(t.Context(), forbearance)
	defer cancel()
	d.apply(web)
	for e, err := range d.Events(ctx, 0, true) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == "start" && e.Unit == "web" {
			if e.Instance != "web.1" || e.Run == "" || e.By != "" {
				t.Errorf("%+v", e)
			}
			return
		}
	}
	t.Error("no start seen")
}

// TestLogsTogether: the oldest files go first; the one that may be written never does.
func TestLogsTogether(t *testing.T) {
	_, _, o := realDaemon(t)
	o.LogTotal = 1
	d := begin(t, o)
	defer d.end()
	dir := filepath.Join(d.paths.logs(), "web", "web.1")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 3; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("app.log.%06d.r%d", i, i)), []byte("text\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.trimLogs()
	if runs, err := runtime.LogRuns(filepath.Join(dir, "app.log")); err != nil || !slices.Equal(runs, []string{"r3"}) {
		t.Errorf("%v, %v", runs, err)
	}
}

// TestCursors: who loses the connection after each line gets every line once.
func TestCursors(t *testing.T) {
	d := talking(t, 2)
	defer d.end()
	seen, all := api.Cursors{}, d.logs(api.LogsRequest{Target: "web"})
	var got []string
	for range len(all) + 1 {
		for l, err := range d.Logs(t.Context(), api.LogsRequest{Target: "web", After: seen.List()}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, l.Instance+" "+string(l.Text))
			seen.Note(l)
			break
		}
	}
	slices.Sort(got)
	slices.Sort(all)
	if len(all) != 4 || !slices.Equal(got, all) {
		t.Errorf("%q, want %q", got, all)
	}
	for _, err := range d.Logs(t.Context(), api.LogsRequest{Target: "web", After: []string{"web.1@x"}}) {
		mustIs(t, err, ErrInvalid)
	}
	for _, err := range d.Logs(t.Context(), api.LogsRequest{Target: "web", Follow: true, Previous: true}) {
		mustIs(t, err, ErrInvalid)
	}
}

// TestPrevious: the last run that wrote something, other than the one that is up.
func TestPrevious(t *testing.T) {
	_, _, o := realDaemon(t)
	d := begin(t, o)
	defer d.end()
	d.apply(web)
	until(t, d, "running", func() bool { return d.find("web").Running == 1 })
	path := d.paths.log("web", "web.1", "app")
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	for i, run := range []string{"web.1-aaaa", "web.1-bbbb", d.find("web").Instances[0].Run} {
		line := "2026-11-03T04:05:06.000000000Z stdout F " + fmt.Sprint(i) + "\n"
		if err := os.WriteFile(fmt.Sprintf("%s.%06d.%s", path, i+1, run), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.logs(api.LogsRequest{Target: "web", Previous: true}); !slices.Equal(got, []string{"web.1 1"}) {
		t.Errorf("%q", got)
	}
}

// TestFollowUntil: following ends at the time that was asked for.
func TestFollowUntil(t *testing.T) {
	d := talking(t, 2)
	defer d.end()
	if got := d.logs(api.LogsRequest{Target: "web", More: []string{"web.1"}, Follow: true, Until: time.Now().Add(200 * time.Millisecond)}); len(got) != 4 {
		t.Errorf("%q", got)
	}
}
