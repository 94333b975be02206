package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// Stage is a layer being made. One of Commit and Discard ends it.
type Stage struct {
	s    *Store
	dir  string
	form Form
	u    *unpacker // has read the archive and waits for Adopt
	done bool      // what is there can be committed
}

// Stage makes the place for an unpack. form says how the layer is to be kept; empty
// is Folder.
func (s *Store) Stage(form Form) (*Stage, error) {
	switch form {
	case "":
		form = Folder
	case Folder, EROFS:
	default:
		return nil, fmt.Errorf("layers of the form %q are not known", form)
	}
	dir, err := os.MkdirTemp(filepath.Join(s.dir, "tmp"), "*")
	if err != nil {
		return nil, err
	}
	sub, mode := diffName, os.FileMode(0o755)
	if form == EROFS {
		sub = mountName
	}
	if err := os.Mkdir(filepath.Join(dir, sub), mode); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return &Stage{s: s, dir: dir, form: form}, nil
}

// Unpack unpacks the possibly compressed archive src, once a stage. Result says what
// comes next: Commit; or, if the layer is Dependent and Options.Lower was not
// given, Adopt; or, if it NeedsLower, Discard and another stage.
func (st *Stage) Unpack(ctx context.Context, src io.Reader, o Options) (Result, error) {
	u, err := newUnpacker(st.dir, st.form, o)
	if err != nil {
		return Result{}, err
	}
	st.u = u
	if err := u.run(ctx, src); err != nil {
		return Result{}, errors.Join(err, st.closeSink())
	}
	st.fallBack(u.misfit)
	if u.res.NeedsLower {
		return u.res, st.closeSink()
	}
	if u.res.Dependent && o.Lower == nil {
		return u.res, nil
	}
	res := u.res
	err = st.complete(o.Lower)
	if st.fallBack(err) {
		return Result{DiffID: res.DiffID, NeedsLower: true}, nil
	}
	if err != nil {
		return Result{}, err
	}
	return res, nil
}

// fallBack notes that the layer has to be kept as a folder.
func (st *Stage) fallBack(err error) bool {
	if !errors.Is(err, errForm) {
		return false
	}
	st.s.log.Debug("layer is kept as a folder", "err", err)
	st.form = Folder
	return true
}

// Adopt makes a dependent layer fit the lower ones. ErrNeedsLower: it has to be
// unpacked again, with Options.Lower, into a stage of the form RetryForm.
func (st *Stage) Adopt(lower *Lower) error {
	if st.u == nil {
		return errors.New("adopt: the stage does not wait for it")
	}
	err := st.complete(lower)
	if st.fallBack(err) {
		return fmt.Errorf("%w: %w", ErrNeedsLower, err)
	}
	return err
}

// RetryForm is the form of the stage or, after an unpack that has found that the
// layer does not fit into it, the form for another one.
func (st *Stage) RetryForm() Form { return st.form }

func (st *Stage) complete(lower *Lower) error {
	err := errors.Join(st.u.complete(lower), st.closeSink())
	st.done = err == nil
	return err
}

func (st *Stage) closeSink() error {
	if st.u == nil {
		return nil
	}
	err := st.u.sink.close()
	st.u = nil // the tree is large
	return err
}

// Discard removes the stage: when it returns, its space is free again.
func (st *Stage) Discard() error {
	if st.dir == "" { // Replace has put it in place
		return st.closeSink()
	}
	return errors.Join(st.closeSink(), disk.RemoveAll(st.dir))
}

// Commit brings the layer to the disk and makes it visible in one step. sync
// is the caller's way to the disk, which it may share. If the layer is there
// already, the stage is dropped.
func (st *Stage) Commit(key string, i Info, sync func() error) error {
	if err := st.seal(i, sync); err != nil {
		return err
	}
	at := filepath.Join(st.s.dir, key)
	err := os.Rename(st.dir, at)
	if errors.Is(err, fs.ErrExist) {
		if _, ok := st.s.Get(key); ok {
			return st.Discard()
		}
		// What stands there is no layer: somebody has deleted files.
		if err = st.s.Quarantine(key, false); err == nil {
			err = os.Rename(st.dir, at)
		}
	}
	if err != nil {
		return err
	}
	return disk.SyncDir(st.s.dir)
}
