package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// retiredName is the folder of layers that were replaced while containers used
// them: KEY-N each.
const retiredName = "retired"

// Replace brings the layer to the disk and puts it in the place of the one with
// that key, in one step: whoever looks finds the old one or the new one. With
// keep the old one stays where containers that use it find its files, until
// DropRetired; else it is deleted.
func (st *Stage) Replace(key string, i Info, sync func() error, keep bool) error {
	if err := st.seal(i, sync); err != nil {
		return err
	}
	at := filepath.Join(st.s.dir, key)
	err := unix.Renameat2(unix.AT_FDCWD, st.dir, unix.AT_FDCWD, at, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, fs.ErrNotExist): // nothing is there any more
		if err := os.Rename(st.dir, at); err != nil {
			return err
		}
		return disk.SyncDir(st.s.dir)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return st.replaceInTwo(at, key, keep)
	case err != nil:
		return &os.LinkError{Op: "exchange", Old: st.dir, New: at, Err: err}
	}
	old := st.dir
	st.dir = "" // nothing that Discard may delete
	// The new one has to be there for good before anything of the old one goes.
	err = errors.Join(disk.SyncDir(st.s.dir), disk.SyncDir(filepath.Dir(old)))
	if err != nil {
		return err
	}
	return st.s.retire(old, key, keep)
}

// replaceInTwo is for file systems that cannot exchange names. A crash between the
// steps leaves no layer, which the next pull makes.
func (st *Stage) replaceInTwo(at, key string, keep bool) error {
	if err := st.s.retire(at, key, keep); err != nil {
		return err
	}
	if err := os.Rename(st.dir, at); err != nil {
		return err
	}
	return disk.SyncDir(st.s.dir)
}

// seal writes layer.json and brings the stage to the disk.
func (st *Stage) seal(i Info, sync func() error) error {
	if !st.done {
		return errors.New("commit: the layer is not complete")
	}
	i.Form = st.form
	b, err := json.Marshal(i)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(st.dir, infoName), b, 0o600); err != nil {
		return err
	}
	return sync()
}

// retire takes away the folder of a layer that was replaced.
func (s *Store) retire(path, key string, keep bool) error {
	if !keep {
		return s.discard(path)
	}
	dir := filepath.Join(s.dir, retiredName)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	to, err := os.MkdirTemp(dir, key+"-*")
	if err != nil {
		return err
	}
	if err := unix.Rename(path, to); err != nil { // an empty folder gives way, unlike with os.Rename
		return errors.Join(err, os.Remove(to))
	}
	return errors.Join(disk.SyncDir(dir), disk.SyncDir(s.dir))
}

// DropRetired deletes the layers that were replaced and whose key is not in use
// any more.
func (s *Store) DropRetired(used func(key string) bool) error {
	dir := filepath.Join(s.dir, retiredName)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if key, _, _ := strings.Cut(e.Name(), "-"); !used(key) {
			err = errors.Join(err, s.discard(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Quarantine takes a layer that cannot be used out of sight. What it has goes
// in the background, as with Remove, or stays for those who use it, as with
// Replace; one that is not there is no error.
func (s *Store) Quarantine(key string, keep bool) error {
	path := filepath.Join(s.dir, key)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(s.retire(path, key, keep), disk.SyncDir(s.dir))
}

// Look tells whether a layer seems whole, as far as that can be seen without
// reading the content of its files: a manifest that is not cut off, and a folder, or an
// image with the metadata that it had.
func (s *Store) Look(key string) error {
	m, err := s.ReadManifest(key)
	if errors.Is(err, ErrNoManifest) {
		_, err := os.Lstat(s.Diff(key))
		return err
	}
	if err != nil {
		return err
	}
	defer m.Close()
	f, err := openFiles(filepath.Join(s.dir, key), m.Form)
	if err != nil {
		return err
	}
	defer f.Close()
	img, ok := f.(*imageFiles)
	if !ok {
		return nil
	}
	sum, err := sumOfMetadata(img.f, m.MetaStart)
	if err == nil && sum != m.MetaSum {
		err = errors.New("metadata of the image differs")
	}
	return err
}

// Made is when a layer was committed.
func (s *Store) Made(key string) (time.Time, bool) {
	st, err := os.Stat(filepath.Join(s.dir, key, infoName))
	if err != nil {
		return time.Time{}, false
	}
	return st.ModTime(), true
}

// CheckStage compares the layer with the same one, unpacked anew: what to do
// if it has no manifest. The stage has to be complete.
func (s *Store) CheckStage(ctx context.Context, key string, st *Stage, w Watch) (Checked, error) {
	m, err := openManifest(st.dir)
	if err != nil {
		return Checked{}, err
	}
	defer m.Close()
	i, ok := s.Get(key)
	if !ok {
		w.Report("", "missing")
		return Checked{}, nil
	}
	return s.check(ctx, key, i.Form, m, w)
}

// AdoptManifest gives a layer without a manifest that of the stage, after CheckStage
// has found no difference. Other forms than folders have had one from the
// beginning.
func (s *Store) AdoptManifest(key string, st *Stage) error {
	if i, ok := s.Get(key); !ok || i.Form != Folder || st.form != Folder {
		return fmt.Errorf("layer %s: the manifest is of another form", key)
	}
	b, err := os.ReadFile(filepath.Join(st.dir, manifestName))
	if err != nil {
		return err
	}
	return disk.WriteFile(filepath.Join(s.dir, key, manifestName), b, 0o600)
}
