package erofs

import (
	"bytes"
	"fmt"
	"io/fs"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// dirEntry is a name in a folder as it stands in the image.
type dirEntry struct {
	name []byte
	ino  uint64
}

// dirBlock reads the k-th block of a folder into b.
func (n *Node) dirBlock(k int64, b []byte) ([]byte, error) {
	b = b[:min(blockSize, n.Size-k*blockSize)]
	if _, err := n.ReadAt(b, k*blockSize); err != nil {
		return nil, err
	}
	if len(b) < direntSize {
		return nil, damaged("folder %d", n.Ino)
	}
	return b, nil
}

// count is how many entries a block of a folder has.
func count(b []byte) int { return int(le.Uint16(b[8:])) / direntSize }

// entry is the k-th entry of a block.
func entry(b []byte, k int) (dirEntry, error) {
	all := count(b)
	if k >= all || all*direntSize > len(b) {
		return dirEntry{}, damaged("%d entries in %d bytes", all, len(b))
	}
	e := b[k*direntSize:]
	from, to := int(le.Uint16(e[8:])), len(b)
	if k+1 < all {
		to = int(le.Uint16(e[direntSize+8:]))
	}
	if from < all*direntSize || from >= to || to > len(b) {
		return dirEntry{}, damaged("entry %d at %d-%d of %d bytes", k, from, to, len(b))
	}
	name := b[from:to]
	if k+1 == all { // the block's end is padded
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
	}
	if len(name) == 0 || len(name) > maxName || bytes.IndexByte(name, '/') >= 0 {
		return dirEntry{}, damaged("name %q", name)
	}
	return dirEntry{name: name, ino: le.Uint64(e)}, nil
}

func (n *Node) folder() error {
	if n.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("inode %d: %w", n.Ino, unix.ENOTDIR)
	}
	return nil
}

// Lookup finds a name in a folder.
func (n *Node) Lookup(name string) (*Node, error) {
	if err := n.folder(); err != nil {
		return nil, err
	}
	var buf [blockSize]byte
	var failed error
	note := func(err error) bool { failed = err; return true }
	// The last block that begins with no later name, then the entry in it.
	blocks := int((n.Size + blockSize - 1) / blockSize)
	k := sort.Search(blocks, func(k int) bool {
		b, err := n.dirBlock(int64(k), buf[:])
		if err != nil {
			return note(err)
		}
		e, err := entry(b, 0)
		if err != nil {
			return note(err)
		}
		return string(e.name) > name
	})
	if failed != nil {
		return nil, failed
	}
	if k == 0 {
		return nil, fs.ErrNotExist
	}
	b, err := n.dirBlock(int64(k-1), buf[:])
	if err != nil {
		return nil, err
	}
	var found dirEntry
	sort.Search(count(b), func(k int) bool {
		e, err := entry(b, k)
		if err != nil {
			return note(err)
		}
		if string(e.name) == name {
			found = e
		}
		return string(e.name) >= name
	})
	switch {
	case failed != nil:
		return nil, failed
	case found.name == nil:
		return nil, fs.ErrNotExist
	}
	return n.r.Node(found.ino)
}

// Each calls f for every entry of a folder but "." and "..", by name. Reader.Node
// reads what they are.
func (n *Node) Each(f func(name string, ino uint64) error) error {
	if err := n.folder(); err != nil {
		return err
	}
	var buf [blockSize]byte
	last := ""
	for k := int64(0); k*blockSize < n.Size; k++ {
		b, err := n.dirBlock(k, buf[:])
		if err != nil {
			return err
		}
		for j := range max(count(b), 1) {
			e, err := entry(b, j)
			if err != nil {
				return err
			}
			name := string(e.name)
			if name <= last {
				return damaged("folder %d is not sorted", n.Ino)
			}
			last = name
			if name == "." || name == ".." {
				continue
			}
			if err := f(name, e.ino); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxPath bounds what a path of Walk can be.
const maxPath = 64 << 10

// Walk calls f for every path, folders before what is in them, by name; the root
// is "". A file with several names comes several times.
func (r *Reader) Walk(f func(path string, n *Node) error) error {
	root, err := r.Lookup("")
	if err != nil {
		return err
	}
	w := &walk{r: r, f: f, seen: map[uint64]bool{}}
	return w.visit("", root, 0)
}

type walk struct {
	r    *Reader
	f    func(string, *Node) error
	seen map[uint64]bool // folders: each can stand in one place only
}

func (w *walk) visit(path string, n *Node, depth int) error {
	if err := w.f(path, n); err != nil {
		return err
	}
	if n.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if w.seen[n.Ino] || depth > maxDepth || len(path) > maxPath {
		return damaged("folder %d stands in itself", n.Ino)
	}
	w.seen[n.Ino] = true
	return n.Each(func(name string, ino uint64) error {
		child, err := w.r.Node(ino)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", path, name, err)
		}
		return w.visit(strings.TrimPrefix(path+"/"+name, "/"), child, depth+1)
	})
}
