package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// syncEvery is how often a slow download is brought to the disk, so that a power
// cut does not cost all of it. A fast one is over before, and is synced once.
const syncEvery = 30 * time.Second

const (
	partialMagic = "wherry-partial 1"
	syncMark     = "sync"
	logSuffix    = ".log"
)

// partial is a blob that is not whole yet: a file with holes, and a log of what is
// there, which outlives the process. Lines of the log after its head:
//
//	FROM TO   these bytes were written to the file
//	sync N    the first N lines of that kind are on the disk
//
// After the end of a process all lines count: the kernel has the bytes. After a
// boot only those count that a sync covers. It is a hint in any case: the
// digest over the whole decides.
type partial struct {
	path     string
	data     *os.File
	log      *os.File
	have     spans
	lines    int
	lastSync time.Time
}

// openPartial goes on with what is there of a blob, or begins.
func (s *Store) openPartial(h string, size int64) (*partial, error) {
	p := &partial{path: s.path("partial", h), lastSync: time.Now()}
	all, synced := readLog(p.path+logSuffix, size, s.boot)
	var err error
	if p.data, err = os.OpenFile(p.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if st, serr := p.data.Stat(); serr != nil || len(all) > 0 && st.Size() < all[len(all)-1].to {
		all, synced = nil, nil // somebody has cut it
	}
	p.have = all
	if len(all) == 0 {
		err = p.data.Truncate(0)
	}
	if err = errors.Join(err, p.startLog(size, s.boot, synced)); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// startLog writes the log anew, as short as it can be.
func (p *partial) startLog(size int64, boot string, synced spans) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %d %s\n", partialMagic, size, boot)
	for _, e := range synced {
		fmt.Fprintf(&b, "%d %d\n", e.from, e.to)
	}
	if len(synced) > 0 {
		fmt.Fprintf(&b, "%s %d\n", syncMark, len(synced))
	}
	for _, e := range p.have {
		fmt.Fprintf(&b, "%d %d\n", e.from, e.to)
	}
	p.lines = len(synced) + len(p.have)
	write := os.WriteFile
	if len(p.have) > 0 {
		write = disk.WriteFile // the old log is worth something
	}
	if err := write(p.path+logSuffix, b.Bytes(), 0o600); err != nil {
		return err
	}
	var err error
	p.log, err = os.OpenFile(p.path+logSuffix, os.O_WRONLY|os.O_APPEND, 0o600)
	return err
}

// readLog returns what of a partial is there, and what of that is on the disk. A
// log that makes no sense counts up to there.
func readLog(path string, size int64, boot string) (all, synced spans) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil
	}
	lines := strings.SplitAfter(string(b), "\n")
	head := strings.Fields(strings.TrimPrefix(lines[0], partialMagic))
	if !strings.HasPrefix(lines[0], partialMagic+" ") || len(head) == 0 || head[0] != strconv.FormatInt(size, 10) {
		return nil, nil
	}
	var seen []span
	for _, line := range lines[1:] {
		var e span
		var n int
		if !strings.HasSuffix(line, "\n") {
			break // cut off
		}
		if _, err := fmt.Sscanf(line, syncMark+" %d\n", &n); err == nil && n <= len(seen) {
			synced = nil
			for _, e := range seen[:n] {
				synced = synced.add(e)
			}
			continue
		}
		if _, err := fmt.Sscanf(line, "%d %d\n", &e.from, &e.to); err != nil || e.from < 0 || e.from >= e.to || e.to > size {
			break
		}
		seen = append(seen, e)
		all = all.add(e)
	}
	if boot == "" || len(head) < 2 || head[1] != boot {
		all = slices.Clone(synced)
	}
	return all, synced
}

// note writes down that bytes are in the file. It is called by one goroutine
// at a time. What cannot be noted is only fetched again.
func (p *partial) note(e span) {
	if p.log == nil || e.from >= e.to {
		return
	}
	if _, err := fmt.Fprintf(p.log, "%d %d\n", e.from, e.to); err == nil {
		p.lines++
	}
}

// due tells whether it is time for a sync, and begins the next period.
func (p *partial) due(now time.Time) (lines int, due bool) {
	if now.Sub(p.lastSync) < syncEvery {
		return 0, false
	}
	p.lastSync = now
	return p.lines, true
}

// sync brings the bytes of the first lines of the log to the disk.
func (p *partial) sync(lines int) error {
	if err := unix.Fdatasync(int(p.data.Fd())); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(p.log, "%s %d\n", syncMark, lines); err != nil {
		return err
	}
	return errors.Join(p.log.Sync(), disk.SyncDir(filepath.Dir(p.path)))
}

// close keeps the partial for later.
func (p *partial) close() error {
	err := p.closeLog()
	return errors.Join(err, p.data.Close())
}

func (p *partial) closeLog() error {
	if p.log == nil {
		return nil
	}
	l := p.log
	p.log = nil
	return l.Close()
}

// unlink removes the names; who has the file open can still read it.
func (p *partial) unlink() error {
	return errors.Join(p.closeLog(), removeIfThere(p.path+logSuffix), removeIfThere(p.path))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Partial is a download that was cut off.
type Partial struct {
	Digest   string
	Size     int64 // bytes on disk
	Modified time.Time
	Active   bool // being fetched right now
}

// Partials returns the downloads that are not whole, the oldest first.
func (s *Store) Partials() ([]Partial, error) {
	entries, err := os.ReadDir(s.path("partial", ""))
	if err != nil {
		return nil, err
	}
	var all []Partial
	for _, e := range entries {
		if _, err := CheckDigest("sha256:" + e.Name()); err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(s.path("partial", e.Name()), &st); err != nil {
			continue // gone meanwhile
		}
		digest := "sha256:" + e.Name()
		s.mu.Lock()
		_, active := s.active[digest]
		s.mu.Unlock()
		all = append(all, Partial{Digest: digest, Size: st.Blocks * 512, Modified: time.Unix(st.Mtim.Unix()), Active: active})
	}
	slices.SortFunc(all, func(a, b Partial) int { return a.Modified.Compare(b.Modified) })
	return all, nil
}

// RemovePartial deletes a download that was cut off and returns the bytes that
// are free by it. One that is being fetched stays.
func (s *Store) RemovePartial(digest string) (int64, error) {
	h, err := CheckDigest(digest)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, active := s.active[digest]; active {
		return 0, nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(s.path("partial", h), &st); err != nil {
		st.Blocks = 0
	}
	return st.Blocks * 512, errors.Join(removeIfThere(s.path("partial", h)+logSuffix), removeIfThere(s.path("partial", h)))
}

// PrunePartials deletes the partials that are older than maxAge, and the oldest
// of the others until they take no more than maxBytes.
func (s *Store) PrunePartials(now time.Time, maxAge time.Duration, maxBytes int64) error {
	all, err := s.Partials()
	if err != nil {
		return err
	}
	var total int64
	for _, p := range all {
		total += p.Size
	}
	for _, p := range all {
		if p.Active || now.Sub(p.Modified) <= maxAge && total <= maxBytes {
			continue
		}
		freed, rerr := s.RemovePartial(p.Digest)
		total -= freed
		err = errors.Join(err, rerr)
	}
	return err
}

// tidyPartials removes what cannot be gone on with.
func (s *Store) tidyPartials() error {
	entries, err := os.ReadDir(s.path("partial", ""))
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	for name := range names {
		h, isLog := strings.CutSuffix(name, logSuffix)
		_, bad := CheckDigest("sha256:" + h)
		if bad != nil || isLog && !names[h] || !isLog && !names[h+logSuffix] {
			err = errors.Join(err, disk.RemoveAll(s.path("partial", name)))
		}
	}
	return err
}

// bootID names the time since the last boot; "" if the kernel does not say.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
