package supervisor

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// pullAll makes the images of all containers present, at the same time. If one
// cannot be, the others are not waited for.
func (st *start) pullAll(ctx context.Context) error {
	containers := st.rec.Revision.Definition.Containers
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st.images = make(map[string]image.Image, len(containers))
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	for i := range containers {
		one := *st
		one.con = &containers[i]
		pull := func() {
			err := one.pull(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				st.images[one.con.Name] = one.img
				return
			}
			if first == nil {
				if first = err; len(containers) > 1 {
					first = fmt.Errorf("container %s: %w", one.con.Name, err)
				}
				cancel()
			}
		}
		if len(containers) == 1 {
			pull()
		} else {
			wg.Go(pull)
		}
	}
	wg.Wait()
	return first
}

// pull makes the container's image present. What its name means is asked once per
// revision: all replicas and later starts use the same digest, and if that is
// here, no registry is needed.
func (st *start) pull(ctx context.Context) error {
	app := st.app()
	key := st.rec.Unit.Name + "/" + strconv.Itoa(st.rec.Revision.Number) + "/" + st.rec.Revision.AppliedAt.String() + "/" + app.Name
	if d := st.rec.Revision.ImageDigest(app.Name); d != "" {
		return st.pullDigest(ctx, d)
	}
	k, err := st.s.resolving.lock(ctx, key)
	if err != nil {
		return err
	}
	defer st.s.resolving.unlock(key, k)
	if k.digest != "" {
		return st.pullDigest(ctx, k.digest)
	}
	policy := image.Policy(app.PullPolicy)
	if localFirst(policy) {
		var ok bool
		if st.img, ok, err = st.s.here(ctx, app, app.Image); err != nil {
			return err
		}
		if ok {
			k.digest = st.img.Digest
			return nil
		}
	}
	if st.img, err = st.fetch(ctx, app.Image, policy); err != nil {
		return err
	}
	k.digest = st.img.Digest
	return nil
}

func (st *start) pullDigest(ctx context.Context, digest string) error {
	var ok bool
	var err error
	if st.img, ok, err = st.s.here(ctx, st.app(), digest); ok || err != nil {
		return err
	}
	policy := image.Policy(st.app().PullPolicy)
	if !localFirst(policy) {
		policy = image.Missing
	}
	st.img, err = st.fetch(ctx, byDigest(st.app().Image, digest), policy)
	return err
}

func (st *start) fetch(ctx context.Context, ref string, policy image.Policy) (image.Image, error) {
	select {
	case st.pulls <- struct{}{}:
		defer func() { <-st.pulls }()
	case <-ctx.Done():
		return image.Image{}, ctx.Err()
	}
	op := api.Operation{Unit: st.rec.Unit.Name, Instance: st.rec.Instance}
	return st.s.pullImage(ctx, op, ref, image.PullOptions{Policy: policy, Credentials: credentials(st.app().RegistryAuth)})
}

// here returns the image if it is in the store. The trust policy is asked again: one that
// became stricter counts at the next start.
func (s *Supervisor) here(ctx context.Context, app *unit.Container, ref string) (image.Image, bool, error) {
	img, err := s.img.Get(ref)
	if err != nil {
		return image.Image{}, false, nil
	}
	o := image.PullOptions{Policy: image.Policy(app.PullPolicy), Credentials: credentials(app.RegistryAuth)}
	if err := s.img.Admit(ctx, app.Image, img.Digest, o); err != nil {
		return image.Image{}, false, err
	}
	return img, true, nil
}

// localFirst tells whether what is here is used without asking the registry.
func localFirst(p image.Policy) bool { return p != image.Always && p != image.Newer }

// credentials are those that the unit itself names; nil: none.
func credentials(a unit.RegistryAuth) *image.Credentials {
	if a == (unit.RegistryAuth{}) {
		return nil
	}
	c := image.Credentials(a)
	return &c
}

// pullAgain brings back what the image lacks: somebody has deleted files, or a power cut
// has damaged them.
func (st *start) pullAgain(ctx context.Context) error {
	policy := image.Missing
	if image.Policy(st.app().PullPolicy) == image.Never {
		policy = image.Never
	}
	_, err := st.fetch(ctx, byDigest(st.app().Image, st.img.Digest), policy)
	return err
}
