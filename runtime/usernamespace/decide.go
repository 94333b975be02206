package usernamespace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Decision says how a volume is used by runs with a user namespace. It is taken
// once, at its first use by any run, and stands beside the volume.
type Decision struct {
	Shifted bool      `json:"shifted"`       // mounted with shifted ids: the owners on disk are those that containers see
	Why     string    `json:"why,omitempty"` // it is not
	Run     string    `json:"run,omitempty"` // that came first
	At      time.Time `json:"at,omitzero"`
}

// Decide reads the decision in file on the volume at dir, or takes and records
// it. An empty volume can be shifted if its file system can. One with content
// that nobody has decided on can only if its owners occur in a user namespace,
// or they would change into nobody.
func Decide(file, dir, run string) (Decision, error) {
	var d Decision
	raw, err := os.ReadFile(file)
	if err == nil {
		if err := json.Unmarshal(raw, &d); err != nil {
			return d, fmt.Errorf("%s: %w", file, err)
		}
		return d, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	d = Decision{Run: run, At: time.Now().UTC().Truncate(time.Second)}
	err = Probe(dir, true)
	if err == nil {
		err = ownersFit(dir)
	} else if !errors.Is(err, ErrCannotShift) {
		d.Why = err.Error() // not for good: the kernel has no user namespaces at the moment
		return d, nil
	}
	d.Shifted = err == nil
	if err != nil {
		d.Why = err.Error()
	}
	return d, record(file, d)
}

// maxLook bounds how many entries of a volume are looked at.
const maxLook = 1000

// ownersFit looks at the top of a volume.
func ownersFit(dir string) error {
	look := func(path string) error {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && (st.Uid >= Size || st.Gid >= Size) {
			return fmt.Errorf("%s belongs to %d:%d, which no user namespace of a run has", path, st.Uid, st.Gid)
		}
		return nil
	}
	if err := look(dir); err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxLook)
	for _, n := range names {
		if err := look(filepath.Join(dir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// record is durable: the volume is too.
func record(file string, d Decision) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // without effect once it has its name
	_, err = f.Write(append(raw, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
