package image

import (
	"errors"
	"os"
	"testing"

	"github.com/wherry-run/wherry/image/internal/quota"
)

// TestQuota: a bound writable layer, or an error that says what is missing and no
// lease.
func TestQuota(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	img := pullOKImage(t, r, s, "a:1", oneFile("a", "x"))
	dir := t.TempDir()
	_, err := s.Prepare(ctx, img.Digest, "x", dir, PrepareOptions{Quota: 1 << 20})
	if quota.Check(dir) == nil && os.Geteuid() == 0 {
		if err != nil {
			t.Fatal(err)
		}
		lease, _ := s.idx.Lease("x")
		if used, limit, err := quota.Usage(dir, lease.Project); err != nil || limit != 1<<20 {
			t.Error(used, limit, err)
		}
		if err := s.Release("x"); err != nil {
			t.Fatal(err)
		}
		if _, limit, err := quota.Usage(dir, lease.Project); err != nil || limit != 0 {
			t.Error("the limit is left:", limit, err)
		}
		return
	}
	if !errors.Is(err, ErrNoQuota) {
		t.Errorf("error = %v, want ErrNoQuota", err)
	}
	t.Log(err)
	if ids, err := s.Leases(); err != nil || len(ids) != 0 {
		t.Error("leases left:", ids, err)
	}
	if _, err := s.Prepare(ctx, img.Digest, "x", dir, PrepareOptions{ReadOnly: true, Quota: 1 << 20}); err != nil {
		t.Error("there is nothing to bound:", err)
	}
}
