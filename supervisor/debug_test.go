package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// beginInTime is begin of a daemon that might hang.
func beginInTime(t *testing.T, o Options) *daemon {
	t.Helper()
	timer := time.AfterFunc(time.Hour, func() { t.Error("the daemon does not get ready") })
	defer timer.Stop()
	return begin(t, o)
}

var debugWeb = api.DebugRequest{Target: "web", Image: "tools"}

// What debugging has left when the daemon died is removed, also what the keeper had not heard of yet.
func TestDebugAfterDeath(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web)
		d.want("web", "running")
		a, err := d.Debug(t.Context(), debugWeb, "tester", nil)
		if err != nil {
			t.Fatal(err)
		}
		img, err := w.Images.Get("tools")
		if err != nil {
			t.Fatal(err)
		}
		d.end()
		unstarted := a.Run + "." + debugPrefix + "abcd"
		if _, err := w.Images.Prepare(t.Context(), img.Digest, unstarted, "", image.PrepareOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(d.paths.container(a.Run, debugPrefix+"abcd"), 0o700); err != nil {
			t.Fatal(err)
		}
		d = beginInTime(t, o)
		defer d.end()
		synctest.Wait()
		leases, _ := w.Images.Leases()
		folders, _ := filepath.Glob(filepath.Join(d.paths.run(a.Run), debugPrefix+"*"))
		if len(leases) != 1 || len(folders) > 0 || strings.Contains(w.String(), debugPrefix) {
			t.Errorf("left: %v %v %s", leases, folders, w)
		}
		d.empty(w)
	})
}

// A debug container that nothing ends holds up no daemon.
func TestDebugStuckAfterDeath(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Runtime.Script = func(c runtime.Config, _ int) supervisortest.Script {
			return supervisortest.Script{Stuck: strings.HasPrefix(c.Container, debugPrefix)}
		}
		d := begin(t, o)
		d.apply(web)
		d.want("web", "running")
		if _, err := d.Debug(t.Context(), debugWeb, "tester", nil); err != nil {
			t.Fatal(err)
		}
		d.end()
		d = beginInTime(t, o)
		defer d.end()
		d.want("web", "running")
	})
}

// A unit's own container is none for debugging, whatever its name.
func TestDebugIsNoContainerOfTheUnit(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply("name: web\ncontainers:\n  main: {image: a, essential: true}\n  debug-side: {image: b, essential: false}\n")
		d.want("web", "running")
		pid := w.Runtime.Pid("web.1/debug-side")
		d.end()
		d = beginInTime(t, o)
		defer d.end()
		d.want("web", "running")
		if now := w.Runtime.Pid("web.1/debug-side"); now != pid || pid == 0 {
			t.Errorf("pid %d, then %d", pid, now)
		}
		d.empty(w)
	})
}

// A unit that is removed while the image of tools is pulled leaves nothing.
func TestDebugOfWhatIsRemoved(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		w.Images.Takes = time.Hour
		done := make(chan error, 1)
		go func() {
			_, err := d.Debug(t.Context(), debugWeb, "tester", nil)
			done <- err
		}()
		time.Sleep(time.Minute)
		d.empty(w)
		time.Sleep(time.Hour)
		mustIs(t, d.answered("debug", done), ErrNotRunning)
		d.empty(w)
	})
}
