package logfile

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// segment is one file of a log.
type segment struct {
	seq  uint64
	run  string
	name string // file name, without the folder
	size int64  // known to a Writer only
}

// seqDigits is the least number of digits of a sequence number in a name, so
// that a plain listing is in order for the first million.
const seqDigits = 6

// segmentName is the file name of a segment of the log called base.
func segmentName(base string, seq uint64, run string) string {
	name := fmt.Sprintf("%s.%0*d", base, seqDigits, seq)
	if run != "" {
		name += "." + run
	}
	return name
}

// parseSegment is the reverse of segmentName.
func parseSegment(base, name string) (segment, bool) {
	rest, ok := strings.CutPrefix(name, base+".")
	if !ok {
		return segment{}, false
	}
	digits, run, dotted := strings.Cut(rest, ".")
	if len(digits) < seqDigits || strings.Trim(digits, "0123456789") != "" || (dotted && run == "") {
		return segment{}, false
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || seq == 0 || segmentName(base, seq, run) != name {
		return segment{}, false
	}
	return segment{seq: seq, run: run, name: name}, true
}

// checkRun refuses what cannot be part of a file name.
func checkRun(base, run string) error {
	switch {
	case run == "", strings.ContainsAny(run, "/\x00\n"):
		return fmt.Errorf("log of run %q: not a valid name of a run", run)
	case len(segmentName(base, 1<<63, run)) > 255:
		return fmt.Errorf("log of run %q: the name is too long for a file", run)
	}
	return nil
}

// list returns the segments of the log at path, lowest number first. A plain
// file at path that nobody has split into segments is one segment, number 0.
func list(path string) ([]segment, error) {
	base := filepath.Base(path)
	d, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // deleted since it was opened
	}
	if err != nil {
		return nil, err
	}
	var segs []segment
	for _, n := range names {
		if s, ok := parseSegment(base, n); ok {
			segs = append(segs, s)
		}
	}
	slices.SortFunc(segs, func(a, b segment) int { return cmp.Compare(a.seq, b.seq) })
	if len(segs) == 0 {
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() {
			segs = []segment{{name: base}}
		}
	}
	return segs, nil
}

// Runs returns the runs that have segments in the log at path, oldest first.
func Runs(path string) ([]string, error) {
	segs, err := list(path)
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", path, err)
	}
	var runs []string
	for _, s := range segs {
		if s.run != "" && (len(runs) == 0 || runs[len(runs)-1] != s.run) {
			runs = append(runs, s.run)
		}
	}
	return runs, nil
}

// link lets path point to the segment called name, in one step.
func link(path, name string) error {
	if to, err := os.Readlink(path); err == nil && to == name {
		return nil
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(name, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
