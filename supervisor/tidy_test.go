package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func TestHoldsOfUnit(t *testing.T) {
	digest := func(n int) string { return fmt.Sprintf("sha256:%064d", n) }
	revision := func(n int, resolved bool) state.Revision {
		r := state.Revision{Unit: "web", Number: n, Definition: unit.Unit{Containers: []unit.Container{{Image: fmt.Sprint("web:", n)}}}}
		if resolved {
			r.Digest = digest(n)
		}
		return r
	}
	revs := []state.Revision{revision(1, true), revision(2, true), revision(3, true), revision(4, false)}
	for _, c := range []struct {
		current, keep int
		want          []string
	}{
		{4, 3, []string{"current revision 4 of unit web: web:4", "revision 3 of unit web: " + digest(3), "revision 2 of unit web: " + digest(2)}},
		{4, 1, []string{"current revision 4 of unit web: web:4"}},
		{4, -1, []string{"current revision 4 of unit web: web:4"}},
		{1, 2, []string{"revision 4 of unit web: web:4", "current revision 1 of unit web: " + digest(1)}},
		{3, 9, []string{"revision 4 of unit web: web:4", "current revision 3 of unit web: " + digest(3), "revision 2 of unit web: " + digest(2), "revision 1 of unit web: " + digest(1)}},
	} {
		e := &entry{unit: api.Unit{Name: "web"}, revs: revs, rev: &revs[c.current-1]}
		var got []string
		for _, h := range holdsOf(e, c.keep) {
			got = append(got, h.Why+": "+h.Digest+h.Name)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("current %d, keep %d: %q", c.current, c.keep, got)
		}
	}
}

func TestPressureLevels(t *testing.T) {
	disk := func(used float64, free int64) image.DiskState {
		return image.DiskState{Total: 1000, Used: used, Free: free, Reserve: 50}
	}
	inodes := image.DiskState{Total: 1000, Used: 1, Free: 990, Inodes: 100, InodesFree: 10}
	for _, c := range []struct {
		was  level
		d    image.DiskState
		want level
	}{
		{roomy, disk(84.9, 150), roomy}, {roomy, disk(85, 150), tight}, {roomy, disk(95, 49), critical}, {roomy, disk(95, 50), tight},
		{tight, disk(84.9, 150), tight}, {tight, disk(82.9, 150), roomy}, {tight, disk(95, 49), critical},
		{critical, disk(95, 52), critical}, {critical, disk(94, 56), tight}, {critical, disk(10, 900), roomy},
		{roomy, inodes, tight}, {roomy, image.DiskState{Total: 1000, Used: 50, Free: 0}, roomy},
	} {
		if got := c.was.judge(c.d, 85); got != c.want {
			t.Errorf("after %d, %+v: %d, want %d", c.was, c.d, got, c.want)
		}
	}
	if words := tight.words(inodes, 85); !strings.Contains(words, "90 % of its inodes") {
		t.Error(words)
	}
}

// full is a world with a disk for ten images.
func full(t *testing.T, f func(t *testing.T, w *supervisortest.World, o Options)) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Images.Room = supervisortest.Room{Total: 1000, Reserve: 50, Image: 100}
		f(t, w, o)
	})
}

func beginTidy(t *testing.T, w *supervisortest.World, o Options) *daemon {
	d := begin(t, o)
	w.Images.HeldBy(d.holds)
	return d
}

func (d *daemon) events(kind string) []api.Event {
	var list []api.Event
	for e, err := range d.Events(context.Background(), 0, false) {
		if err != nil {
			d.t.Fatal(err)
		}
		if e.Type == kind {
			list = append(list, e)
		}
	}
	return list
}

func TestTidyAtTheHighMark(t *testing.T) {
	full(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := beginTidy(t, w, o)
		defer d.end()
		for n := range 3 {
			d.apply(strings.Replace(web, "nginx:1", fmt.Sprint("nginx:", n), 1))
			time.Sleep(time.Second)
		}
		for n := range 3 {
			if _, err := w.Images.Pull(t.Context(), fmt.Sprint("old:", n), image.PullOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		if n := w.Images.Collections(); n < 2 || n > 4 {
			t.Error("collections in ten minutes:", n)
		}
		if got := d.events(event.ImageGC); len(got) > 0 {
			t.Error("deleted without need:", got)
		}
		w.Images.Fill(250) // 85 % used
		time.Sleep(lookEvery + tidyApart)
		got := d.events(event.ImageGC)
		if len(got) != 1 || w.Images.Has("old:0") || !w.Images.Has("old:1") || !w.Images.Has("nginx:0") || got[0].Message != "1 image deleted, 100 B freed" {
			t.Errorf("%+v", got)
		}
		if p := d.events(event.DiskPressure); len(p) > 0 {
			t.Error("what tidying mends is no pressure:", p)
		}
		w.Images.Fill(640) // 300 of images that are needed
		time.Sleep(5 * time.Minute)
		p := d.events(event.DiskPressure)
		if w.Images.Has("old:2") || !w.Images.Has("nginx:0") || len(p) != 1 || !strings.Contains(p[0].Message, "94 % full, above 85 %") {
			t.Errorf("%+v", p)
		}
		if warn := d.Info().Warnings; !slices.ContainsFunc(warn, func(s string) bool { return strings.Contains(s, "no image can be deleted") }) {
			t.Error(warn)
		}
		w.Images.Fill(0)
		time.Sleep(lookEvery)
		synctest.Wait()
		if p := d.events(event.DiskPressure); len(p) != 2 || !strings.Contains(p[1].Message, "room again") || len(d.Info().Warnings) > 0 {
			t.Errorf("%+v %v", p, d.Info().Warnings)
		}
	})
}

func TestPullWithoutRoom(t *testing.T) {
	full(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := beginTidy(t, w, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		w.Images.Fill(870) // 30 are left
		d.apply(strings.NewReplacer("web", "db", "nginx", "redis").Replace(web) + "restart_policy: {condition: any, max_attempts: 3, interval: 10m}\n")
		time.Sleep(3 * time.Hour)
		if u := d.unit("db"); u.Running != 0 || !strings.Contains(u.Reason, "no space left on device: 100 needed, 30 free") {
			t.Errorf("%+v", u)
		}
		d.want("web", "running")
		if p := d.events(event.DiskPressure); len(p) != 1 || p[0].Fields["pulls_refused"] != true {
			t.Errorf("%+v", p)
		}
		before := w.Images.Pulls("redis:1")
		if before > 10 {
			t.Error("tried", before, "times, although 3 were allowed")
		}
		w.Images.Fill(500)
		time.Sleep(2 * lookEvery)
		d.want("db", "running") // also though it had given up
	})
}

// TestRoomThatComesAndGoes: a retry that has to wait for its time is not forgotten.
func TestRoomThatComesAndGoes(t *testing.T) {
	full(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := beginTidy(t, w, o)
		defer d.end()
		for _, used := range []int64{970, 500, 970} {
			w.Images.Fill(used)
			time.Sleep(lookEvery + tidyApart)
		}
		d.apply(web + "restart_policy: {condition: any, max_attempts: 1, interval: 10m}\n")
		time.Sleep(lookEvery)
		if u := d.unit("web"); u.Running != 0 || !strings.Contains(u.Reason, "no space left on device") {
			t.Fatalf("%+v", u)
		}
		w.Images.Fill(500)
		time.Sleep(2 * retryApart)
		d.want("web", "running")
		if p := d.events(event.DiskPressure); len(p) != 4 {
			t.Errorf("%+v", p)
		}
	})
}

// A pull that has too little room gets what nobody needs, also below High.
func TestPullMakesRoom(t *testing.T) {
	full(t, func(t *testing.T, w *supervisortest.World, o Options) {
		o.GC = GC{High: 100, Low: 99}
		d := beginTidy(t, w, o)
		defer d.end()
		for n := range 9 {
			if _, err := w.Images.Pull(t.Context(), fmt.Sprint("old:", n), image.PullOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		began := time.Now()
		if w.Images.LastCollection().All {
			t.Error("everything was to go without need")
		}
		d.apply(web)
		for d.state("web") != "running" {
			if time.Since(began) > time.Minute {
				t.Fatalf("%+v", d.unit("web"))
			}
			time.Sleep(100 * time.Millisecond)
		}
		if got := d.events(event.ImageGC); len(got) != 1 || !strings.HasSuffix(got[0].Message, whyRoom) {
			t.Errorf("%+v", got)
		}
		// How much it needs was not known: all that nobody needs goes, but for young ones.
		if o := w.Images.LastCollection(); !o.All || o.MinAge != time.Hour {
			t.Errorf("%+v", o)
		}
	})
}

func TestHoldsBeforeReady(t *testing.T) {
	world(t, func(t *testing.T, _ *supervisortest.World, o Options) {
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.holds(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	})
}

// An image is held from before its start looks for it until there is a lease.
func TestHoldsWhileStarting(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Images.Takes = time.Minute
		d := beginTidy(t, w, o)
		defer d.end()
		held := func() string {
			list, err := d.holds(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, h := range list {
				words = append(words, h.Name+h.Digest+" "+h.Why)
			}
			return strings.Join(words, "; ")
		}
		run := make(chan error, 1)
		go func() {
			_, err := d.RunUnit(t.Context(), api.RunRequest{Unit: unit.Unit{Name: "job", Containers: []unit.Container{{Image: "busybox"}}}}, "tester", nil)
			run <- err
		}()
		d.apply(web)
		synctest.Wait()
		if got, want := held(), "busybox job is being started; nginx:1 web.1 is being started; nginx:1 current revision 1 of unit web"; got != want {
			t.Errorf("%s", got)
		}
		if err := <-run; err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		job, _ := w.Images.Get("busybox")
		img, _ := w.Images.Get("nginx:1")
		if got, want := held(), job.Digest+" current revision 1 of unit job; "+img.Digest+" current revision 1 of unit web"; got != want {
			t.Errorf("%s", got)
		}
		if _, err := d.Remove(t.Context(), api.ActRequest{All: true, Force: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		if got := held(); got != "" {
			t.Error(got)
		}
	})
}

func TestEndedRunsGo(t *testing.T) {
	full(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := beginTidy(t, w, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		if _, err := d.Stop(t.Context(), api.ActRequest{All: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		folders := func() int {
			synctest.Wait()
			records, err := readRecords(d.paths)
			if err != nil {
				t.Fatal(err)
			}
			return len(records)
		}
		stopped := time.Now()
		d.post(tidyRuns{stopped.Add(endedAge - time.Hour)})
		if n := folders(); n != 1 {
			t.Fatal("not there to be looked at:", n)
		}
		d.post(tidyRuns{stopped.Add(endedAge + time.Hour)})
		if n := folders(); n != 0 || len(w.Leftovers()) > 0 {
			t.Error("still there:", n, w.Leftovers())
		}
		if u := d.unit("web"); u.State != "stopped" || u.Instances[0].Exit == nil {
			t.Errorf("forgotten how it ended: %+v", u)
		}
		// Under pressure they go as soon as images may.
		d.Start(t.Context(), api.ActRequest{All: true}, "tester")
		d.Stop(t.Context(), api.ActRequest{All: true}, "tester")
		w.Images.Fill(890)
		time.Sleep(50 * time.Minute)
		if n := folders(); n != 1 {
			t.Error("too early:", n)
		}
		time.Sleep(20 * time.Minute)
		if n := folders(); n != 0 {
			t.Error("still there under pressure:", n)
		}
	})
}

func TestDiskUsage(t *testing.T) {
	full(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := beginTidy(t, w, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		if _, err := w.Images.Pull(t.Context(), "other:1", image.PullOptions{}); err != nil {
			t.Fatal(err)
		}
		run := d.unit("web").Instances[0].Run
		for _, dir := range []string{d.paths.container(run, "app") + "/upper", d.paths.container(run, "app") + "/volumes/0", d.paths.unitLogs("web"), d.paths.root + "/volumes/data/data"} {
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "f"), make([]byte, 50_000), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		u, err := d.DiskUsage(t.Context())
		if err != nil || len(u.Units) != 1 || len(u.Units[0].Containers) != 1 || len(u.Images) != 2 {
			t.Fatalf("%+v %v", u, err)
		}
		about := func(n int64) bool { return n >= 50_000 && n < 80_000 }
		web, c := u.Units[0], u.Units[0].Containers[0]
		img, _ := w.Images.Get("nginx:1")
		if web.Unit != "web" || !slices.Equal(web.Images, []string{img.Digest}) || web.ImageSize != 100 || !about(web.Writable) || !about(web.Volumes) || !about(web.Logs) || !about(u.Volumes) {
			t.Errorf("%+v", web)
		}
		if c.Run != run || c.Instance != "web.1" || c.Image != img.Digest || c.Ended || c.Writable != web.Writable || c.Volumes != web.Volumes {
			t.Errorf("%+v", c)
		}
		if !slices.Equal(u.Images[0].Units, []string{"web"}) || len(u.Images[1].Units) != 0 || u.Disk.Total != 1000 || u.Disk.Free != 800 {
			t.Errorf("%+v %+v", u.Images, u.Disk)
		}
		if _, err := d.Stop(t.Context(), api.ActRequest{All: true}, "tester"); err != nil {
			t.Fatal(err)
		}
		if u, err = d.DiskUsage(t.Context()); err != nil || !u.Units[0].Containers[0].Ended {
			t.Errorf("%+v %v", u.Units, err)
		}
	})
}

func TestCollectAsked(t *testing.T) {
	full(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := beginTidy(t, w, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		if _, err := w.Images.Pull(t.Context(), "other:1", image.PullOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, dry := range []bool{true, false} {
			res, err := d.CollectImages(t.Context(), image.GCOptions{All: true, DryRun: dry})
			if err != nil || len(res.Images) != 1 || w.Images.Has("other:1") != dry || len(d.events(event.ImageGC)) != map[bool]int{false: 1}[dry] {
				t.Errorf("dry %v: %+v %v", dry, res, err)
			}
		}
		if e, err := d.ExplainImage(t.Context(), "nginx:1"); err != nil || !e.Stays {
			t.Error(e, err)
		}
	})
}

// TestCollectAnswersAPull: after a collection of everything nobody comes to make room for
// a pull that asked for some before.
func TestCollectAnswersAPull(t *testing.T) {
	full(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := beginTidy(t, w, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		time.Sleep(time.Minute)
		d.tidying.ask(whyRoom, 1) // the tidier comes at once, and looks at what it need not do any more
		synctest.Wait()
		d.tidying.ask(whyRoom, 900)
		if _, err := d.CollectImages(t.Context(), image.GCOptions{All: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if last := w.Images.LastCollection(); last.Room != 0 || last.All {
			t.Errorf("the tidier was told %+v", last)
		}
	})
}
