package usernamespace

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// Size is how many ids a run gets.
const Size = 1 << 16

// DefaultClaims is the folder that all daemons of a host share.
const DefaultClaims = "/run/wherry-ids"

// ErrNoIDs says that all ranges are taken.
var ErrNoIDs = errors.New("no free range of ids")

// Options configure a Pool.
type Options struct {
	Dir    string       // of the leases; required
	Claims string       // shared by all daemons of the host; empty: DefaultClaims
	Logger *slog.Logger // nil: discards

	ranges []span                 // tests: where leases come from
	read   func() ([]span, error) // tests: what is not ours
}

// Lease is the ids of one run.
type Lease struct {
	Run string `json:"run"`
	runtime.IDMap
}

// Pool leases ids. It is safe for concurrent use.
type Pool struct {
	o      Options
	mu     sync.Mutex
	leases map[string]Lease
}

// Open reads the leases that are on disk.
func Open(o Options) (*Pool, error) {
	if o.Claims == "" {
		o.Claims = DefaultClaims
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ranges == nil {
		o.ranges = ours
	}
	if o.read == nil {
		o.read = others
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("id leases: %w", err)
	}
	p := &Pool{o: o, leases: map[string]Lease{}}
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("id leases: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(o.Dir, e.Name())
		l, err := readLease(path)
		if err != nil {
			o.Logger.Warn("id lease unreadable, removed", "file", path, "err", err)
			os.Remove(path)
			continue
		}
		p.leases[l.Run] = l
	}
	return p, nil
}

const leaseSuffix = ".json"

func (p *Pool) path(run string) string { return filepath.Join(p.o.Dir, run+leaseSuffix) }

func readLease(path string) (Lease, error) {
	var l Lease
	raw, err := os.ReadFile(path)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return l, err
	}
	if l.Run+leaseSuffix != filepath.Base(path) || l.HostID == 0 || l.Size == 0 {
		return l, errors.New("not a lease")
	}
	return l, nil
}

// Lease gives a run its ids, the same ones if it has some already.
func (p *Pool) Lease(run string) (runtime.IDMap, error) {
	if run == "" || run[0] == '.' || strings.ContainsAny(run, "/\x00") {
		return runtime.IDMap{}, fmt.Errorf("ids of %q: not a run's name", run)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.leases[run]; ok {
		return l.IDMap, nil
	}
	l, err := p.lease(run)
	if err != nil {
		return runtime.IDMap{}, fmt.Errorf("ids of %s: %w", run, err)
	}
	return l.IDMap, nil
}

func (p *Pool) lease(run string) (Lease, error) {
	foreign, err := p.o.read()
	if err != nil {
		return Lease{}, err
	}
	unlock, err := p.lockClaims()
	if err != nil {
		return Lease{}, err
	}
	defer unlock()
	claimed, err := p.claimed()
	if err != nil {
		return Lease{}, err
	}
	for _, region := range p.o.ranges {
		slots := region.slots()
		first := hash(instanceOf(run)) % slots
		for i := range slots {
			start := region.slot((first + i) % slots)
			if claimed[start] || overlapsAny(span{start, start + Size}, foreign) {
				continue
			}
			l := Lease{Run: run, IDMap: runtime.IDMap{HostID: uint32(start), Size: Size}}
			return l, p.put(l)
		}
	}
	return Lease{}, fmt.Errorf("%w (%d taken)", ErrNoIDs, len(claimed))
}

// put writes the lease, then the claim that points to it. The other way round a
// crash in between would leave a claim that counts for nothing, and a run that believes in it.
func (p *Pool) put(l Lease) error {
	raw, err := json.Marshal(l)
	if err != nil {
		return err
	}
	path := p.path(l.Run)
	tmp := filepath.Join(p.o.Dir, "."+l.Run+".tmp")
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	if err := p.claim(l, path); err != nil {
		os.Remove(path)
		return err
	}
	p.leases[l.Run] = l
	return nil
}

func (p *Pool) claim(l Lease, path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	name := p.claimPath(l.HostID)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // one that counts for nothing
		return err
	}
	return os.Symlink(abs, name)
}

func (p *Pool) claimPath(start uint32) string {
	return filepath.Join(p.o.Claims, strconv.FormatUint(uint64(start), 10))
}

// lockClaims keeps other daemons from claiming meanwhile.
func (p *Pool) lockClaims() (unlock func(), err error) {
	if err := os.MkdirAll(p.o.Claims, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(p.o.Claims, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// claimed are the starts of ranges that some daemon of the host has.
func (p *Pool) claimed() (map[uint64]bool, error) {
	entries, err := os.ReadDir(p.o.Claims)
	if err != nil {
		return nil, err
	}
	taken := map[uint64]bool{}
	for _, l := range p.leases { // also if somebody has emptied the folder of claims
		taken[uint64(l.HostID)] = true
	}
	for _, e := range entries {
		start, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		if p.valid(uint32(start)) {
			taken[start] = true
		}
	}
	return taken, nil
}

// valid tells whether a claim still has its lease.
func (p *Pool) valid(start uint32) bool {
	path, err := os.Readlink(p.claimPath(start))
	if err != nil {
		return false
	}
	l, err := readLease(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return err != nil || l.HostID == start // of one that cannot be read it is not known
}

// Hold makes a lease that is lost anew, for a run that is alive with these ids.
func (p *Pool) Hold(run string, m runtime.IDMap) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.leases[run]; ok && l.IDMap == m {
		return nil
	}
	unlock, err := p.lockClaims()
	if err != nil {
		return fmt.Errorf("ids of %s: %w", run, err)
	}
	defer unlock()
	if err := p.put(Lease{Run: run, IDMap: m}); err != nil {
		return fmt.Errorf("ids of %s: %w", run, err)
	}
	return nil
}

// Release frees a run's ids. What has none is no error.
func (p *Pool) Release(run string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.release(run)
}

func (p *Pool) release(run string) error {
	l, ok := p.leases[run]
	if !ok {
		return nil
	}
	unlock, err := p.lockClaims()
	if err != nil {
		return fmt.Errorf("ids of %s: %w", run, err)
	}
	defer unlock()
	path, _ := filepath.Abs(p.path(run))
	if to, err := os.Readlink(p.claimPath(l.HostID)); err == nil && to == path {
		os.Remove(p.claimPath(l.HostID))
	}
	if err := os.Remove(p.path(run)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ids of %s: %w", run, err)
	}
	delete(p.leases, run)
	return nil
}

// Keep frees all leases but those of the runs given.
func (p *Pool) Keep(live []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for run := range p.leases {
		if !slices.Contains(live, run) {
			errs = append(errs, p.release(run))
		}
	}
	return errors.Join(errs...)
}

// Leases lists the leases by run.
func (p *Pool) Leases() []Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Lease, 0, len(p.leases))
	for _, l := range p.leases {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Lease) int { return strings.Compare(a.Run, b.Run) })
	return out
}

// instanceOf cuts the run's own part off: web.1-7f3k is a run of web.1.
func instanceOf(run string) string {
	if i := strings.LastIndexByte(run, '-'); i > 0 {
		return run[:i]
	}
	return run
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}
