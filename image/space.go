package image

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/internal/disk"
)

const (
	// What layers unpack to, as a multiple of the blob: the usual of common images,
	// not the worst. Whoever needs more is stopped by the reserve.
	ratioGzip = 2.5
	ratioZstd = 3.0

	// keepInodes is how many inodes pulls leave free, if it is not more than a
	// hundredth of all.
	keepInodes = 10_000
	// layerInodes is what a layer takes at least.
	layerInodes = 8
)

// estargz, and zstd:chunked after it, say in an annotation how large the archive is.
const annotationSize = "io.containers.estargz.uncompressed-size"

// unpackedSize estimates what a layer takes when it is unpacked.
func unpackedSize(d v1.Descriptor) int64 {
	if n, err := strconv.ParseInt(d.Annotations[annotationSize], 10, 64); err == nil && n >= 0 && n < 1<<50 {
		return n
	}
	switch mt := string(d.MediaType); {
	case strings.HasSuffix(mt, "zstd"):
		return int64(float64(d.Size) * ratioZstd)
	case strings.HasSuffix(mt, "gzip"):
		return int64(float64(d.Size) * ratioGzip)
	}
	return d.Size
}

// room is what running pulls have been promised of the file system.
type room struct {
	path    string
	option  int64 // Options.Reserve
	statfs  func(string) (disk.Stat, error)
	mu      sync.Mutex
	claims  map[string]*roomClaim // by flight
	flying  []*flight             // the oldest first
	turned  map[string]int64      // by flight: unpacked bytes that had no room; more than was estimated
	seen    disk.Stat             // what statfs said
	seenAt  time.Time
	current func() time.Time
}

// roomClaim is what one layer will still take.
type roomClaim struct {
	refs            int // pulls that want it
	fetch, unpacked int64
}

func newRoom(path string, option int64, statfs func(string) (disk.Stat, error)) *room {
	return &room{path: path, option: option, statfs: statfs, claims: map[string]*roomClaim{}, turned: map[string]int64{}, current: time.Now}
}

// want is what a pull needs for one layer that is missing.
type want struct {
	key             string // of the flight
	fetch, unpacked int64  // bytes
}

// claim promises a pull its room, or refuses it with the numbers. What another
// pull has been promised for the same layer is not counted twice.
func (r *room) claim(wants []want) (release func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(wants) == 0 {
		return func() {}, nil
	}
	st, err := r.statfs(r.path)
	if err != nil {
		return nil, err
	}
	e := &disk.NoSpaceError{Path: r.path, Free: st.Free, Reserve: reserveOf(r.option, st.Total)}
	for _, c := range r.claims {
		e.Claimed += c.fetch + c.unpacked
	}
	for _, w := range wants {
		if _, shared := r.claims[w.key]; !shared {
			e.Need += w.fetch + w.unpacked
			e.Fetch += w.fetch
		}
	}
	if e.Need > st.Free-e.Reserve-e.Claimed {
		return nil, e
	}
	if need := int64(len(wants) * layerInodes); st.Inodes > 0 && st.InodesFree < need+r.inodes(st) {
		e.Inodes, e.InodesFree = uint64(st.Inodes), st.InodesFree
		return nil, e
	}
	for _, w := range wants {
		c, ok := r.claims[w.key]
		if !ok {
			c = &roomClaim{fetch: w.fetch, unpacked: w.unpacked}
			r.claims[w.key] = c
		}
		c.refs++
	}
	return sync.OnceFunc(func() { r.release(wants) }), nil
}

func (r *room) release(wants []want) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range wants {
		if c := r.claims[w.key]; c != nil {
			if c.refs--; c.refs == 0 {
				delete(r.claims, w.key)
			}
		}
	}
}

// inodes is how many inodes stay free.
func (r *room) inodes(st disk.Stat) int64 {
	if r.option < 0 {
		return 0
	}
	return min(st.Inodes/100, keepInodes)
}

// enter says that there is a flight, which is expected to unpack to so many bytes.
func (r *room) enter(f *flight, unpacked int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.left = unpacked
	r.flying = append(r.flying, f)
}

// maxTurned is how many layers are remembered that were larger than estimated.
const maxTurned = 1000

// leave says how a flight has ended. What a layer turned out to need at least is the
// estimate for the next try: it is refused at once, or has more room than this one.
func (r *room) leave(f *flight, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		delete(r.turned, f.key)
	case isNoSpace(err):
		if len(r.turned) >= maxTurned {
			clear(r.turned)
		}
		r.turned[f.key] = max(r.turned[f.key], f.asked+f.left)
	}
	for i, o := range r.flying {
		if o == f {
			r.flying = append(r.flying[:i], r.flying[i+1:]...)
			return
		}
	}
}

// expect is what a layer will unpack to.
func (r *room) expect(key string, d v1.Descriptor) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(unpackedSize(d), r.turned[key])
}

// taker is take for one unpack of a flight.
func (r *room) taker(f *flight) func(int64) error {
	r.mu.Lock()
	f.asked = 0
	r.mu.Unlock()
	return func(need int64) error { return r.take(f, need) }
}

// take is asked before so many bytes of a layer's content are written: the reserve is
// not for them. It may be for an older flight, as check will have the youngest give
// way. f is nil for what is no flight.
func (r *room) take(f *flight, need int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, err := r.statfs(r.path)
	if err != nil {
		return err
	}
	r.seen, r.seenAt = st, r.current()
	e := &disk.NoSpaceError{Path: r.path, Free: st.Free, Need: need}
	if f != nil {
		f.asked += need
	}
	if f == nil || len(r.flying) == 0 || r.flying[len(r.flying)-1] == f {
		e.Reserve = reserveOf(r.option, st.Total)
	}
	if need > st.Free-e.Reserve {
		return e
	}
	return nil
}

// check notes what a flight still needs, and looks whether the reserve is
// touched. Then the youngest flight has to give way: what the older ones have put
// on the disk is worth more, and one that ends may be enough.
func (r *room) check(f *flight, fetch, unpacked int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.left = unpacked
	if c := r.claims[f.key]; c != nil {
		c.fetch, c.unpacked = min(c.fetch, fetch), min(c.unpacked, unpacked)
	}
	if now := r.current(); now.Sub(r.seenAt) >= reportEvery/2 {
		st, err := r.statfs(r.path)
		if err != nil {
			return err
		}
		r.seen, r.seenAt = st, now
	}
	if len(r.flying) == 0 || r.flying[len(r.flying)-1] != f {
		return nil
	}
	st := r.seen
	e := &disk.NoSpaceError{Path: r.path, Free: st.Free, Reserve: reserveOf(r.option, st.Total), Need: fetch + unpacked, Fetch: fetch}
	switch {
	case st.Total == 0:
		return nil // not asked yet
	case st.Inodes > 0 && st.InodesFree < r.inodes(st):
		e.Inodes, e.InodesFree = uint64(st.Inodes), st.InodesFree
	case st.Free >= e.Reserve:
		return nil
	}
	return e
}

// full describes a file system on which something has just not fitted.
func (r *room) full() error {
	e := disk.Full(r.path)
	if st, err := r.statfs(r.path); err == nil {
		e.Reserve = reserveOf(r.option, st.Total)
	}
	return e
}

// wants lists what a pull will bring to the disk.
func (s *Store) wants(res *resolved) []want {
	var all []want
	seen := map[string]bool{}
	for _, j := range res.layers {
		if _, ok := s.have(j); ok || seen[j.key()] {
			continue
		}
		seen[j.key()] = true
		w := want{key: j.key(), fetch: s.blobs.Missing(j.desc.Digest.String(), j.desc.Size)}
		if _, ok := s.layers.Find(j.diffID, j.chain); !ok {
			w.unpacked = s.room.expect(j.key(), j.desc)
		}
		all = append(all, w)
	}
	return all
}

// isNoSpace tells whether an error is about room that is missing.
func isNoSpace(err error) bool { return errors.Is(err, ErrNoSpace) }
