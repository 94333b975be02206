package supervisor

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

// TestPolicyCountsAtTheNextStart: what runs goes on, what starts again obeys the trust
// policy of today, although its image is here.
func TestPolicyCountsAtTheNextStart(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		var strict atomic.Bool
		w.Images.Refuse = func(ref, _ string) error {
			if strict.Load() {
				return fmt.Errorf("%s: %w", ref, image.ErrUntrusted)
			}
			return nil
		}
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		d.want("web", "running")
		strict.Store(true)
		time.Sleep(time.Hour)
		d.want("web", "running")
		w.Runtime.End("web.1", runtime.Exit{Code: 1})
		time.Sleep(10 * time.Second)
		d.want("web", "backoff")
		strict.Store(false)
		time.Sleep(10 * time.Minute)
		d.want("web", "running")
		d.empty(w)
	})
}
