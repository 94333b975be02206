package image

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/wherry-run/wherry/image/internal/overlay"
	"github.com/wherry-run/wherry/image/internal/quota"
)

// bound gives the writable layer of a lease a limit. The lease names the project
// before anything belongs to it, so that it is never given away twice.
func (s *Store) bound(id string, stack overlay.Stack, bytes int64) error {
	if err := quota.Check(stack.Upper); err != nil {
		return translateQuota(err)
	}
	project, err := s.project(id, stack.Upper)
	if err != nil {
		return translateQuota(err)
	}
	return translateQuota(quota.Limit(project, bytes, stack.Upper, stack.Work))
}

// project is the quota project of a lease: the one it has, or one that is free.
func (s *Store) project(id, dir string) (quota.Project, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	leases, err := s.leasesLocked()
	if err != nil {
		return 0, err
	}
	taken := map[quota.Project]bool{}
	for _, l := range leases {
		if l.ID == id && l.Project != 0 {
			return l.Project, nil
		}
		taken[l.Project] = true
	}
	lease, ok := s.idx.Lease(id)
	if !ok {
		return 0, errors.New("the lease is gone")
	}
	if lease.Project, err = quota.Free(dir, taken); err != nil {
		return 0, err
	}
	return lease.Project, s.idx.SetLease(lease)
}

// unbound takes the limit of a released lease away. Its folder may be gone
// already; the file system is that of the folders above it.
func (s *Store) unbound(id, dir string, project quota.Project) {
	for dir != "/" && dir != "." {
		if _, err := os.Lstat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	if err := quota.Drop(dir, project); err != nil && !errors.Is(err, quota.ErrNone) {
		s.log.Warn("a quota is left", "container", id, "err", err)
	}
}

// translateQuota puts our own sentinel in front.
func translateQuota(err error) error {
	if errors.Is(err, quota.ErrNone) {
		return &quotaError{err}
	}
	return err
}

// quotaError is an ErrNoQuota with its reason.
type quotaError struct{ err error }

func (e *quotaError) Error() string        { return e.err.Error() }
func (e *quotaError) Is(target error) bool { return target == ErrNoQuota }
func (e *quotaError) Unwrap() error        { return e.err }
