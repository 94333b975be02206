package logfile

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// old is a segment that nobody writes any more.
type old struct {
	path string
	size int64
	at   time.Time // of its last write
}

// Trim removes the oldest segments of all the logs at or below dir until they
// take at most total bytes together. The newest segment of a log always stays:
// it may be written. A log's own writer finds out by itself.
func Trim(dir string, total int64) (removed int, freed int64, err error) {
	olds, size, err := segmentsBelow(dir)
	if err != nil {
		return 0, 0, err
	}
	slices.SortFunc(olds, func(a, b old) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.path, b.path)) })
	var failed error
	for _, o := range olds {
		if size <= total {
			break
		}
		if err := os.Remove(o.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = cmp.Or(failed, err)
			continue
		}
		size -= o.size
		freed += o.size
		removed++
	}
	return removed, freed, failed
}

// segmentsBelow returns the segments that may go, and how much all of them
// take.
func segmentsBelow(dir string) (olds []old, size int64, err error) {
	newest := map[string]segment{} // by the log's path
	sizes := map[string]old{}      // by the segment's
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile
		case err != nil:
			return err
		case !d.Type().IsRegular():
			return nil
		}
		base, s, ok := anySegment(d.Name())
		if !ok {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		sizes[path] = old{path, info.Size(), info.ModTime()}
		size += info.Size()
		log := filepath.Join(filepath.Dir(path), base)
		if s.seq > newest[log].seq {
			newest[log] = s
		}
		return nil
	})
	for log, s := range newest {
		delete(sizes, filepath.Join(filepath.Dir(log), s.name))
	}
	for _, o := range sizes {
		olds = append(olds, o)
	}
	return olds, size, err
}

// anySegment takes a segment's name apart whose log is not known: one that ends
// in ".log".
func anySegment(name string) (base string, s segment, ok bool) {
	const ending = ".log"
	for i := 0; i+len(ending) < len(name); i++ {
		if name[i:i+len(ending)] != ending {
			continue
		}
		base = name[:i+len(ending)]
		if s, ok = parseSegment(base, name); ok {
			return base, s, true
		}
	}
	return "", segment{}, false
}
