package layer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/erofs"
)

// node is a file, folder, link or device of the layer. The same node under
// several names is a hard link.
type node struct {
	erofs.Inode
	size  int64
	sum   uint64  // xxhash64 of a regular file's content; its writer sets it
	names int32   // how many there are of it in the tree
	dir   *folder // of a folder
}

func (n *node) kind() uint32 { return n.Mode & unix.S_IFMT }

// isWhiteout tells whether overlayfs takes n for the deletion of its name.
func (n *node) isWhiteout() bool { return n.kind() == unix.S_IFCHR && n.Rdev == 0 }

// folder is a folder of the layer. What the archive says of it is in node; it
// reaches the disk at the very end, because children change the times, and a
// mode without write permission would stop an unprivileged unpack.
type folder struct {
	node     *node
	parent   *folder
	name     string
	kids     map[string]*node
	length   int  // of the path
	explicit bool // the archive has an entry for it
	opaque   bool // nothing of what the layers below have in it shows through
	copied   bool // made for what was copied up, and no entry has been in it
	fresh    bool // nor has it to do with a folder there of that name; opaque, too

	// What the folder form has open of it.
	fd   int          // -1: not open at the moment
	used bool         // since the last look of the evictor
	refs atomic.Int32 // writers that are using fd
}

func (f *folder) pathLen() int { return f.length }

// path is where the folder stands, "" for the root. It has no symlinks.
func (f *folder) path() string {
	if f.parent == nil {
		return ""
	}
	parts := []string{}
	for ; f.parent != nil; f = f.parent {
		parts = append(parts, f.name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// join is the path of a name in f.
func (f *folder) join(name string) string {
	if f.parent == nil {
		return name
	}
	return f.path() + "/" + name
}

// hidden tells whether nothing of the lower layers shows in f.
func (f *folder) hidden() bool {
	for ; f != nil; f = f.parent {
		if f.opaque {
			return true
		}
	}
	return false
}

// within tells whether f is top or stands below it.
func (f *folder) within(top *folder) bool {
	for ; f != nil; f = f.parent {
		if f == top {
			return true
		}
	}
	return false
}

// sorted returns the names in f, in the order of their bytes.
func (f *folder) sorted() []string {
	names := make([]string, 0, len(f.kids))
	for name := range f.kids {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// folders returns the folders in f by name.
func (f *folder) folders() []*folder {
	var fs []*folder
	for _, n := range f.kids {
		if n.dir != nil {
			fs = append(fs, n.dir)
		}
	}
	slices.SortFunc(fs, func(a, b *folder) int { return cmp.Compare(a.name, b.name) })
	return fs
}

// tree is what the archive has said so far. It alone decides what a name means;
// the disk is only written to.
type tree struct {
	root  *folder
	gone  *node // every whiteout
	left  int64 // bytes that it may still grow by
	limit int64
}

// nodeCost is about what an entry takes in memory beside its strings: the node,
// its place in the map of its folder and in the list that EROFS is written from.
const nodeCost = 320

// folderCost is what a folder takes on top.
const folderCost = 256

func newTree(limit int64) *tree {
	root := &folder{kids: map[string]*node{}, fd: -1}
	root.node = &node{dir: root, names: 1}
	root.node.Inode = defaultFolder
	return &tree{root: root, gone: &node{Inode: erofs.Inode{Mode: unix.S_IFCHR}}, left: limit, limit: limit}
}

// defaultFolder is a folder that no archive describes.
var defaultFolder = erofs.Inode{Mode: unix.S_IFDIR | 0o755}

// put gives n a name that is free.
func (t *tree) put(f *folder, name string, n *node) error {
	if err := checkName(f, name); err != nil {
		return err
	}
	cost := int64(nodeCost+len(name)+len(n.Target)) + xattrCost(n.Xattrs)
	if n.dir != nil {
		cost += folderCost
	}
	if err := t.charge(cost); err != nil {
		return err
	}
	// The name is a piece of a path, which would stay in memory with it.
	f.kids[strings.Clone(name)] = n
	n.names++
	return nil
}

// describe gives a folder the attributes that an entry has for it.
func (t *tree) describe(f *folder, n *node) error {
	f.node.describe(&n.Inode)
	return t.charge(xattrCost(n.Xattrs))
}

// charge takes memory off what the tree may still take.
func (t *tree) charge(cost int64) error {
	if t.left -= cost; t.left < 0 {
		return fmt.Errorf("archive has too many entries: they take more than %s of memory", disk.Bytes(t.limit))
	}
	return nil
}

func xattrCost(xattrs map[string]string) (cost int64) {
	for k, v := range xattrs {
		cost += int64(len(k) + len(v) + 64)
	}
	return cost
}

// newFolder makes a folder that no archive describes yet.
func (t *tree) newFolder(parent *folder, name string) (*folder, error) {
	f := &folder{parent: parent, name: strings.Clone(name), kids: map[string]*node{}, length: parent.length + 1 + len(name), fd: -1}
	f.node = &node{dir: f}
	f.node.Inode = defaultFolder
	return f, t.put(parent, name, f.node)
}

// drop takes a name away, with all that stands below it. Whoever wants the name
// on the disk gone as well does that first.
func (t *tree) drop(f *folder, name string) {
	n := f.kids[name]
	delete(f.kids, name)
	n.names--
	if n.dir != nil {
		for kid := range n.dir.kids {
			t.drop(n.dir, kid)
		}
	}
}
