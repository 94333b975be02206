package image

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// vouched remembers which signatures were seen, so that a node boots without
// a network. It stands in images/trust.json. What is lost or damaged is verified
// again, which takes the network; nothing is let in for it.
type vouched struct {
	path string

	mu  sync.Mutex
	all map[string][]voucher // by manifest digest; nil: not read yet
}

// voucher is one signature that counted.
type voucher struct {
	Signer string    `json:"signer"` // fingerprint: of the key, or of identity and trusted root
	By     string    `json:"by"`     // who, for people
	Signed string    `json:"signed"` // digest that was signed: the manifest's or an index's
	Rule   string    `json:"rule"`   // that asked for it, for people
	At     time.Time `json:"at"`     // when it was verified
}

// keepVouchers is how long a voucher for an image that is not there stays: its
// layers may still be on their way.
const keepVouchers = 24 * time.Hour

// find returns a voucher by one of the signers.
func (v *vouched) find(digest string, signers []*signer) (voucher, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.readLocked()
	for _, w := range v.all[digest] {
		if slices.ContainsFunc(signers, func(s *signer) bool { return s.print == w.Signer }) {
			return w, true
		}
	}
	return voucher{}, false
}

func (v *vouched) readLocked() {
	if v.all != nil {
		return
	}
	v.all = map[string][]voucher{}
	var doc trustFile
	if b, err := readTrustFile(v.path); err == nil && json.Unmarshal(b, &doc) == nil && doc.Images != nil && doc.Version == 1 {
		v.all = doc.Images
	}
}

type trustFile struct {
	Version int                  `json:"version"`
	Images  map[string][]voucher `json:"images"`
}

// add makes a voucher durable, and forgets those of images that are gone.
func (v *vouched) add(digest string, w voucher, there func(digest string) bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.readLocked()
	next := map[string][]voucher{}
	for d, list := range v.all {
		young := slices.ContainsFunc(list, func(o voucher) bool { return w.At.Sub(o.At) < keepVouchers })
		if young || there(d) {
			next[d] = list
		}
	}
	others := slices.DeleteFunc(slices.Clone(next[digest]), func(o voucher) bool { return o.Signer == w.Signer })
	next[digest] = append(others, w)
	b, err := json.MarshalIndent(trustFile{1, next}, "", "\t")
	if err != nil {
		return err
	}
	if err := disk.WriteFile(v.path, append(b, '\n'), 0o600); err != nil {
		return err
	}
	v.all = next
	return nil
}

func trustPath(root string) string { return filepath.Join(root, "images", "trust.json") }
