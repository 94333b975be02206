package supervisor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
)

func TestPullsAreOperations(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Images.Takes = time.Minute
		d := begin(t, o)
		defer d.end()
		id, wait, err := d.StartPull("nginx", image.PullOptions{}, "tester")
		if err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := wait(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that goes away: %v", err)
		}
		synctest.Wait()
		if all := d.Operations(); len(all) != 1 || all[0].ID != id || all[0].By != "tester" || all[0].Step != "resolve" {
			t.Fatalf("%+v", all)
		}
		if img, err := wait(t.Context()); err != nil || img.Digest == "" {
			t.Fatal(img, err)
		}
		if all := d.Operations(); len(all) != 0 {
			t.Errorf("after its end: %+v", all)
		}
		id, wait, _ = d.StartPull("redis", image.PullOptions{}, "tester")
		other, _, _ := d.StartPull("redis", image.PullOptions{}, "tester")
		if a, err := d.AbortOperation(id, "somebody"); err != nil || !a.GoesOn {
			t.Errorf("%+v, %v", a, err)
		}
		if _, err := wait(t.Context()); !errors.Is(err, api.ErrAborted) || err.Error() != "aborted by somebody" {
			t.Errorf("aborted: %v", err)
		}
		if a, err := d.AbortOperation(other, "somebody"); err != nil || a.GoesOn {
			t.Errorf("the last one: %+v, %v", a, err)
		}
		if _, err := d.AbortOperation(id, "somebody"); !errors.Is(err, api.ErrNoSuchOperation) {
			t.Errorf("once more: %v", err)
		}
	})
}

// What a unit needs is seen, and ended by stopping the unit only.
func TestPullOfAStart(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Images.Takes = time.Minute
		d := begin(t, o)
		defer d.end()
		d.apply("name: web\nimage: nginx\nregistry_auth: {token_file: /t}\nstorage_opt: {size: 1GiB}\n")
		synctest.Wait()
		all := d.Operations()
		if len(all) != 1 || all[0].Unit != "web" || all[0].Instance != "web.1" || all[0].Object != "nginx" {
			t.Fatalf("%+v", all)
		}
		if _, err := d.AbortOperation(all[0].ID, "somebody"); err == nil {
			t.Error("a start's pull is aborted")
		}
	})
}
