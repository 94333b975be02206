package index

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The last use of an image is the time of an empty file, so that noting it
// costs no write of ours and no sync: it is on the disk with the next commit of
// the file system's journal, and a power cut takes back seconds at most.

func (x *Index) usedPath(digest string) string {
	return filepath.Join(x.dir, "used", strings.TrimPrefix(digest, "sha256:"))
}

// Touch notes a use of the image.
func (x *Index) Touch(digest string, at time.Time) error {
	path := x.usedPath(digest)
	err := os.Chtimes(path, at, at)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return os.Chtimes(path, at, at)
}

// Used is when the image was last used; zero if that is not known.
func (x *Index) Used(digest string) time.Time {
	st, err := os.Stat(x.usedPath(digest))
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// ForgetUse removes what Touch has noted of images that are not in the index
// any more.
func (x *Index) ForgetUse() error {
	dir := filepath.Join(x.dir, "used")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if _, ok := x.Images["sha256:"+e.Name()]; !ok {
			err = errors.Join(err, remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Sizes are what layers take on disk, in bytes and inodes. Layers never change:
// each is measured once, and what was measured is only a saving of time.
type Sizes map[string][2]int64

func (x *Index) sizesPath() string { return filepath.Join(x.dir, "sizes.json") }

// LoadSizes reads what SaveSizes wrote; nothing, if that cannot be read.
func (x *Index) LoadSizes() Sizes {
	sizes := Sizes{}
	b, err := os.ReadFile(x.sizesPath())
	if err != nil || json.Unmarshal(b, &sizes) != nil || sizes == nil {
		return Sizes{}
	}
	return sizes
}

// SaveSizes keeps the sizes for the next LoadSizes. It does not sync.
func (x *Index) SaveSizes(sizes Sizes) error {
	b, err := json.Marshal(sizes)
	if err != nil {
		return err
	}
	tmp := x.sizesPath() + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return errors.Join(err, remove(tmp))
	}
	return os.Rename(tmp, x.sizesPath())
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
