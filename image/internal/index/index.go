// Package index answers: which names stand for which images, and who uses them?
//
// It does not hold content and deletes none.
//
// On disk, below the folder it is given:
//
//	index.json   images by manifest digest, and names; replaced as a whole. The
//	             version before is index.json.old; a damaged one that Open had to give
//	             up is index.json.damaged
//	leases/ID    one lease: the image that run ID uses
//	used/HEX     empty; its time is the last use of the image with that digest
//	sizes.json   what layers take on disk; may be deleted at any time
//
// The index is durable. A lease survives the end of the process but is not
// synced: what it protects, a mounted root file system, does not survive a
// power cut either. Nor are the times of use.
package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/image/internal/disk"
)

const version = 1

// Layer is one layer of an image.
type Layer struct {
	Digest string `json:"digest"`
	DiffID string `json:"diff_id"`
	Size   int64  `json:"size"`
	Key    string `json:"key"` // name of the unpacked folder
}

// Image is one image, with all that must be there for it.
type Image struct {
	Digest   string    `json:"digest"`
	ConfigID string    `json:"config"`
	Size     int64     `json:"size"`
	Platform string    `json:"platform"`
	Layers   []Layer   `json:"layers"`
	PulledAt time.Time `json:"pulled_at"`

	// Indexes are the digests of the indexes that it was chosen from, the
	// outermost first: what signs one of them signs the image.
	Indexes []string `json:"indexes,omitempty"`
}

// Index is the content of index.json. It is not safe for concurrent use.
type Index struct {
	Version int               `json:"version"`
	Images  map[string]Image  `json:"images"` // by manifest digest
	Names   map[string]string `json:"names"`  // to the manifest digest

	// Recovered says what was wrong with index.json, if Open had to go back to the
	// version before it, or to none.
	Recovered string `json:"-"`

	dir string
}

// Open reads the index, or begins one.
func Open(dir string) (*Index, error) {
	if err := os.MkdirAll(filepath.Join(dir, "leases"), 0o700); err != nil {
		return nil, err
	}
	x := &Index{Version: version, Images: map[string]Image{}, Names: map[string]string{}, dir: dir}
	err := x.read(x.path())
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	}
	if errors.Is(err, errDamaged) {
		return x.recover(err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", x.path(), err)
	}
	return x, nil
}

var errDamaged = errors.New("damaged")

func (x *Index) read(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, x); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if x.Version > version {
		return fmt.Errorf("version %d is newer than this program", x.Version)
	}
	if x.Images == nil || x.Names == nil {
		return fmt.Errorf("%w: no images", errDamaged)
	}
	return nil
}

// recover goes on with the version before the damaged one, or with none: a store
// that forgets an image is better than none at all. The damaged file stays.
func (x *Index) recover(why error) (*Index, error) {
	fresh := func() *Index {
		return &Index{Version: version, Images: map[string]Image{}, Names: map[string]string{}, dir: x.dir}
	}
	old := fresh()
	if err := old.read(x.before()); err != nil {
		old = fresh()
	}
	old.Recovered = why.Error()
	if err := os.Rename(x.path(), x.path()+".damaged"); err != nil {
		return nil, err
	}
	return old, old.Save()
}

// before is the path of the version before.
func (x *Index) before() string { return x.path() + ".old" }

func (x *Index) path() string { return filepath.Join(x.dir, "index.json") }

// Save makes the index durable.
func (x *Index) Save() error {
	b, err := json.MarshalIndent(x, "", "\t")
	if err != nil {
		return err
	}
	// The old version keeps a name, for the case that the disk loses the new one.
	if err := remove(x.before()); err != nil {
		return err
	}
	if err := os.Link(x.path(), x.before()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return disk.WriteFile(x.path(), append(b, '\n'), 0o600)
}

// Clone copies the index for a change that may fail.
func (x *Index) Clone() *Index {
	c := *x
	c.Images, c.Names = maps.Clone(x.Images), maps.Clone(x.Names)
	return &c
}

// NamesOf returns the names of an image, sorted.
func (x *Index) NamesOf(digest string) []string {
	names := []string{}
	for name, d := range x.Names {
		if d == digest {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Lease says that a run uses an image.
type Lease struct {
	ID     string   `json:"-"`
	Digest string   `json:"digest"`
	Keys   []string `json:"layers"`
	Dir    string   `json:"dir,omitempty"` // where the writable layer stands

	Project uint32 `json:"project,omitempty"` // quota project of the writable layer; 0: none
}

func (x *Index) leasePath(id string) (string, error) {
	if id == "" || id[0] == '.' || strings.ContainsAny(id, "/\x00") || len(id) > 200 {
		return "", fmt.Errorf("lease %q: not a usable id", id)
	}
	return filepath.Join(x.dir, "leases", id), nil
}

// SetLease makes or replaces a lease.
func (x *Index) SetLease(l Lease) error {
	path, err := x.leasePath(l.ID)
	if err != nil {
		return err
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	tmp := filepath.Join(x.dir, "leases", ".tmp-"+l.ID)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// DropLease ends a lease; one that is not there is fine.
func (x *Index) DropLease(id string) error {
	path, err := x.leasePath(id)
	if err != nil {
		return err
	}
	return remove(path)
}

// Lease returns the lease of a run.
func (x *Index) Lease(id string) (Lease, bool) {
	l := Lease{ID: id}
	path, err := x.leasePath(id)
	if err != nil {
		return l, false
	}
	b, err := os.ReadFile(path)
	return l, err == nil && json.Unmarshal(b, &l) == nil
}

// Leases reads all leases, sorted by id. What a crash cut off is removed and
// reported in broken.
func (x *Index) Leases() (all []Lease, broken []string, err error) {
	dir := filepath.Join(x.dir, "leases")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		l := Lease{ID: e.Name()}
		if strings.HasPrefix(e.Name(), ".") || json.Unmarshal(b, &l) != nil {
			if err := os.Remove(path); err != nil {
				return nil, nil, err
			}
			broken = append(broken, e.Name())
			continue
		}
		all = append(all, l)
	}
	return all, broken, nil
}
