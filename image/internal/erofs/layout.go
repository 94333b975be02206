package erofs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// firstInode is where in the metadata the root's inode is. Not at 0: programs
// take an entry with the inode number 0 for a deleted one.
const firstInode = 2 * nidUnit

// maxDepth is how many folders may stand in each other.
const maxDepth = 10_000

// plan says where everything of a tree goes. Breadth first: what a folder has
// stands together, so that listing it with all attributes reads few blocks.
type plan struct {
	order []*Inode
	size  int64 // of the inodes' part
	extra int64 // blocks that follow it
}

// MetadataSize is how much Finish would add to the image.
func (w *Writer) MetadataSize(root *Inode) (int64, error) {
	p, err := newPlan(root)
	if err != nil {
		return 0, err
	}
	return p.total(), nil
}

func (p *plan) total() int64 { return roundUp(p.size, blockSize) + p.extra*blockSize }

// Finish writes the metadata and then the superblock, and has not synced anything.
// It sorts the folders' Children.
func (w *Writer) Finish(root *Inode) error {
	if w.cur.open {
		return errors.New("a file's content has not ended")
	}
	p, err := newPlan(root)
	if err != nil {
		return err
	}
	if err := w.pad(); err != nil {
		return err
	}
	meta := w.at + int64(len(w.buf))
	if (meta+p.total())/blockSize > maxBlocks {
		return fmt.Errorf("image of %d bytes: %w", meta+p.total(), errFormat)
	}
	if err := w.inodes(p, meta); err != nil {
		return err
	}
	if err := w.blocks(p); err != nil {
		return err
	}
	if err := errors.Join(w.flush(), w.Close()); err != nil {
		return err
	}
	_, err = w.f.WriteAt(w.super(p, meta), superOffset)
	return err
}

func newPlan(root *Inode) (*plan, error) {
	if !root.IsFolder() {
		return nil, fmt.Errorf("the root is no folder: %w", errFormat)
	}
	p := &plan{}
	root.plan, root.parent, root.nlink = p, root, 2
	p.order = append(p.order, root)
	depth, level := 0, 1 // level: where the next depth begins in order
	for k := 0; k < len(p.order); k++ {
		if k == level {
			depth, level = depth+1, len(p.order)
		}
		if depth > maxDepth {
			return nil, fmt.Errorf("folders in folders more than %d deep: %w", maxDepth, errFormat)
		}
		if i := p.order[k]; i.IsFolder() {
			if err := p.enter(i); err != nil {
				return nil, err
			}
		}
	}
	p.size = firstInode
	for _, i := range p.order {
		if err := p.put(i); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// enter takes a folder's children into the order.
func (p *plan) enter(dir *Inode) error {
	slices.SortFunc(dir.Children, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	for k, e := range dir.Children {
		if err := checkName(e.Name); err != nil {
			return err
		}
		if k > 0 && e.Name == dir.Children[k-1].Name {
			return fmt.Errorf("name %q twice in a folder: %w", e.Name, errFormat)
		}
		i := e.Inode
		if i.plan == p {
			if i.IsFolder() {
				return fmt.Errorf("folder %q has two names: %w", e.Name, errFormat)
			}
			i.nlink++
			continue
		}
		if err := i.check(); err != nil {
			return fmt.Errorf("%q: %w", e.Name, err)
		}
		i.plan, i.nlink = p, 1
		if i.IsFolder() {
			i.parent, i.nlink = dir, 2
			dir.nlink++
		}
		p.order = append(p.order, i)
	}
	return nil
}

// put gives an inode its place. What stands beside it (attributes and inline data)
// is kept in its block: kernels refuse links where it is not.
func (p *plan) put(i *Inode) error {
	xattrs, err := xattrSize(i.Xattrs)
	if err != nil {
		return err
	}
	b := i.body(xattrs)
	together := inodeSize
	if b.layout == layoutInline {
		together += xattrs + b.tail
	}
	p.size = roundUp(p.size, nidUnit)
	if p.size%blockSize+int64(together) > blockSize {
		p.size = roundUp(p.size, blockSize)
	}
	i.nid = uint64(p.size / nidUnit)
	p.size += int64(inodeSize + xattrs + b.tail)
	p.extra += int64(b.blocks)
	return nil
}

// body is where an inode's content stands.
type body struct {
	layout int
	size   int64 // of the content
	tail   int   // bytes beside the inode: inline data or the list of chunks
	blocks int   // behind the inodes
}

func (i *Inode) body(xattrs int) body {
	fits := func(n int) bool { return inodeSize+xattrs+n <= blockSize }
	inMeta := func(size, full, tail int) body {
		switch {
		case tail == 0:
			return body{layout: layoutPlain, size: int64(size), blocks: full}
		case fits(tail):
			return body{layout: layoutInline, size: int64(size), blocks: full, tail: tail}
		}
		return body{layout: layoutPlain, size: int64(size), blocks: full + 1}
	}
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		full, last := i.pack()
		return inMeta(full*blockSize+last.size, full, last.size)
	case unix.S_IFLNK:
		return inMeta(len(i.Target), 0, len(i.Target))
	case unix.S_IFREG:
		switch {
		case i.Data.sparse != nil:
			return body{layout: layoutChunks, size: i.Data.Size, tail: 4 * len(i.Data.sparse.chunks)}
		case i.Data.inline != nil:
			return inMeta(len(i.Data.inline), 0, len(i.Data.inline))
		}
		return body{layout: layoutPlain, size: i.Data.Size}
	}
	return body{layout: layoutPlain}
}
