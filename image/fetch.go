package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// layerJob is one layer of an image being pulled.
type layerJob struct {
	desc   v1.Descriptor
	diffID string
	chain  string
}

// key names the flight of the layer.
func (j layerJob) key() string { return j.desc.Digest.String() + " " + j.diffID }

// have tells whether the layer is there and its blob is known to be it. The
// blob itself may have gone to make room, see Collect: nobody needs it for that.
func (s *Store) have(j layerJob) (key string, ok bool) {
	size, stored := s.blobs.Size(j.desc.Digest.String())
	if stored && size != j.desc.Size || s.blobs.DiffID(j.desc.Digest.String()) != j.diffID {
		return "", false
	}
	return s.layers.Find(j.diffID, j.chain)
}

// maxTries is how often a blob is fetched from zero before wrong bytes are
// believed to be the registry's last word.
const maxTries = 2

// fly is the work of a flight: the blob is on disk and verified afterwards, and
// the layer is either committed, if it stands for itself, or left in f.stage.
func (s *Store) fly(ctx context.Context, f *flight, r *repository, j layerJob) (err error) {
	s.room.enter(f, unpackedSize(j.desc))
	defer func() { s.room.leave(f, err) }()
	busy := s.sync.Begin()
	defer busy.End()
	for try := 1; ; try++ {
		digest := j.desc.Digest.String()
		_, stored := s.blobs.Size(digest)
		err := s.attempt(ctx, f, r, j, busy)
		var wrong *corruptError
		if !errors.As(err, &wrong) || ctx.Err() != nil {
			return err
		}
		if stored {
			try = 0
			s.log.Warn("stored blob is damaged, fetching it again", "layer", digest, "err", err)
			continue
		}
		if r == nil {
			return err
		}
		// A mirror that lied is not asked again, which is not counted.
		if r.Retry(ctx, try, wrong.MismatchError) == nil {
			try = 0
		}
		if try >= maxTries {
			return err
		}
		s.log.Warn("blob came out wrong, fetching it again", "layer", digest, "err", err)
	}
}

// attempt brings a blob and its layer to the disk, from what is there of it
// already and the registry.
func (s *Store) attempt(ctx context.Context, f *flight, r *repository, j layerJob, busy *disk.Busy) (err error) {
	digest := j.desc.Digest.String()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d, err := s.blobs.Join(ctx, digest, j.desc.Size, s.remote(r, j.desc))
	if err != nil {
		return s.stepFailed(StepFetch, digest, err)
	}
	defer func() {
		leave := d.Leave
		if isNoSpace(err) { // what cannot be unpacked must not take the room of what can
			leave = d.Discard
		}
		err = errors.Join(err, leave())
	}()
	w := &watcher{s: s, f: f, j: j, d: d, src: d.Reader(ctx)}
	defer w.start(ctx, cancel)()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return s.stepFailed(StepFetch, digest, context.Cause(ctx))
	}
	free := sync.OnceFunc(func() { <-s.slots })
	defer free()
	return s.land(ctx, w, busy, free)
}

// errNoRegistry: what was loaded from an archive has no other place to come from.
var errNoRegistry = errors.New("it is damaged or not in the store any more; load the archive again")

// remote is where a blob comes from. Without a repository it must be there.
func (s *Store) remote(r *repository, desc v1.Descriptor) blob.Remote {
	if r == nil {
		return blob.Remote{
			Open:  func(context.Context, int64, int64) (io.ReadCloser, int64, error) { return nil, 0, errNoRegistry },
			Retry: func(_ context.Context, _ int, err error) error { return err },
			Stall: stallTimeout, Connections: s.connections,
		}
	}
	return blob.Remote{
		Open: func(ctx context.Context, offset, length int64) (io.ReadCloser, int64, error) {
			return r.Blob(ctx, desc, offset, length)
		},
		Retry: r.Retry, Stall: stallTimeout, Connections: s.connections, Host: r.registry,
	}
}

// land unpacks a blob while it comes. An archive that cannot be unpacked does
// not end the download: wrong bytes are reported as such and not as the garbage
// they unpack to.
func (s *Store) land(ctx context.Context, w *watcher, busy *disk.Busy, free func()) (err error) {
	f, j, d, digest := w.f, w.j, w.d, w.j.desc.Digest.String()
	stage, err := s.layers.Stage(s.form())
	if err != nil {
		return s.stepFailed(StepUnpack, digest, err)
	}
	defer func() {
		if stage != nil {
			err = errors.Join(err, stage.Discard())
		}
	}()
	res, unpackErr := stage.Unpack(ctx, w.src, layer.Options{Room: s.room.taker(f)})
	if isNoSpace(unpackErr) { // the rest of the blob would not fit either
		return s.stepFailed(StepUnpack, digest, unpackErr)
	}
	if err := d.Wait(ctx); err != nil {
		return s.stepFailed(StepFetch, digest, err)
	}
	w.report()
	if unpackErr == nil && res.DiffID != j.diffID {
		unpackErr = &StepError{Step: StepVerify, Object: digest, Err: fmt.Errorf("%w: it unpacks to %s, the image's config says %s", ErrCorrupt, res.DiffID, j.diffID)}
	}
	if unpackErr != nil {
		// The bytes are right: whoever tries again need not fetch them.
		return s.stepFailed(StepUnpack, digest, errors.Join(unpackErr, d.Commit()))
	}
	if err := s.blobs.SetDiffID(digest, res.DiffID); err != nil {
		return s.stepFailed(StepCommit, digest, err)
	}
	free()
	w.enter(StepCommit)
	if res.Dependent || res.NeedsLower {
		if err := d.Commit(); err != nil {
			return s.stepFailed(StepCommit, digest, err)
		}
		f.mu.Lock()
		f.stage, f.result = stage, res
		f.mu.Unlock()
		stage = nil
		return nil
	}
	err = stage.Commit(layer.Key(res.DiffID), infoOf(res, ""), func() error {
		return errors.Join(busy.Sync(), d.Publish())
	})
	if err == nil {
		stage = nil
	}
	return s.stepFailed(StepCommit, digest, err)
}

// roomAlone is for what is unpacked from a stored blob.
func (s *Store) roomAlone(n int64) error { return s.room.take(nil, n) }

func infoOf(r layer.Result, chain string) layer.Info {
	i := layer.Info{DiffID: r.DiffID, Dependent: r.Dependent, Size: r.Size, Entries: r.Entries, Root: r.Root, OpaqueRoot: r.OpaqueRoot}
	if i.Dependent {
		i.Chain = chain
	}
	return i
}

// settle turns a flight's unpacked layer into the one for this chain, above the
// layers with the given keys (the topmost first).
func (s *Store) settle(ctx context.Context, f *flight, j layerJob, below []string) (string, error) {
	digest := j.desc.Digest.String()
	lower, err := s.layers.Lower(below...)
	if err != nil {
		return "", s.stepFailed(StepUnpack, digest, err)
	}
	defer lower.Close()
	form := s.form()
	stage, res := f.claim()
	if stage != nil && !res.NeedsLower {
		if err = stage.Adopt(lower); err == nil {
			return s.commitDependent(stage, res, j)
		}
	}
	if stage != nil {
		form = stage.RetryForm()
		if derr := stage.Discard(); derr != nil {
			return "", s.stepFailed(StepUnpack, digest, derr)
		}
		if err != nil && !errors.Is(err, layer.ErrNeedsLower) {
			return "", s.stepFailed(StepUnpack, digest, err)
		}
	}
	return s.unpackAbove(ctx, j, form, lower)
}

// unpackAbove unpacks a stored blob with the lower layers at hand.
func (s *Store) unpackAbove(ctx context.Context, j layerJob, form layer.Form, lower *layer.Lower) (string, error) {
	digest := j.desc.Digest.String()
	file, err := s.blobs.Open(digest)
	if err != nil {
		return "", s.stepFailed(StepUnpack, digest, err)
	}
	defer file.Close()
	stage, err := s.layers.Stage(form)
	if err != nil {
		return "", s.stepFailed(StepUnpack, digest, err)
	}
	res, err := stage.Unpack(ctx, file, layer.Options{Lower: lower, Room: s.roomAlone})
	if err == nil && res.DiffID != j.diffID {
		err = fmt.Errorf("%w: the stored blob unpacks to %s, not %s", ErrCorrupt, res.DiffID, j.diffID)
	}
	if err != nil || res.NeedsLower {
		err = errors.Join(err, stage.Discard())
	}
	if err != nil {
		return "", s.stepFailed(StepUnpack, digest, err)
	}
	if res.NeedsLower { // the form cannot hold it
		return s.unpackAbove(ctx, j, stage.RetryForm(), lower)
	}
	return s.commitDependent(stage, res, j)
}

func (s *Store) commitDependent(stage *layer.Stage, res layer.Result, j layerJob) (string, error) {
	key := layer.Key(j.chain)
	if !res.Dependent {
		key = layer.Key(j.diffID)
	}
	if err := stage.Commit(key, infoOf(res, j.chain), s.sync.Sync); err != nil {
		return "", s.stepFailed(StepCommit, j.desc.Digest.String(), errors.Join(err, stage.Discard()))
	}
	return key, nil
}
