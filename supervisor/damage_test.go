package supervisor

import (
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// TestDamagedImageIsPulledAgain: an image whose layer is gone is pulled by its digest, once a
// start, and never against the unit's policy.
func TestDamagedImageIsPulledAgain(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		img, err := w.Images.Get("nginx:1")
		if err != nil {
			t.Fatal(err)
		}
		pinned := byDigest("nginx:1", img.Digest)
		w.Images.Damage(img.Digest)
		w.Images.Push("nginx:1") // the tag is somebody else's by now
		w.Runtime.End("web.1", runtime.Exit{Code: 1})
		time.Sleep(10 * time.Second)
		d.want("web", "running")
		if n := w.Images.Pulls(pinned); n != 1 {
			t.Error("pulled by digest", n, "times")
		}
		if n := w.Images.Pulls("nginx:1"); n != 1 {
			t.Error("pulled by tag", n, "times")
		}

		d.apply(web + "pull_policy: never\n")
		time.Sleep(10 * time.Second)
		d.want("web", "running")
		w.Images.Damage(img.Digest)
		w.Runtime.End("web.1", runtime.Exit{Code: 1})
		time.Sleep(10 * time.Second)
		if u := d.unit("web"); u.Running != 0 || !strings.Contains(u.Reason, "damaged or gone") {
			t.Errorf("%+v", u)
		}
		if n := w.Images.Pulls(pinned); n != 1 {
			t.Error("pulled by digest", n, "times against the policy")
		}
	})
}

// TestImageDeletedMeanwhile: an image that somebody deletes right after a start has found it is pulled again.
func TestImageDeletedMeanwhile(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		armed := false
		w.Images.Refuse = func(string, string) error {
			if armed {
				armed = false
				w.Images.Forget()
			}
			return nil
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		time.Sleep(time.Minute)
		armed = true
		w.Runtime.End("web.1", runtime.Exit{Code: 1})
		time.Sleep(10 * time.Second)
		d.want("web", "running")
		if failed := d.events(event.StartFailed); armed || len(failed) > 0 {
			t.Errorf("armed %v, failed %+v", armed, failed)
		}
	})
}
