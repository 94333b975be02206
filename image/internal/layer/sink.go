package layer

import (
	"errors"
	"io"
	"os"
)

// Form is how a layer's files are kept.
type Form string

// A folder with the layer's files, or one EROFS image.
const (
	Folder Form = "folder"
	EROFS  Form = "erofs"
)

// errForm says that a layer cannot be kept in the form that was asked for.
var errForm = errors.New("layer cannot be kept in this form")

// sink is the form that a layer takes on the disk. The unpacker tells it what
// happens to the tree, in the order in which it happens.
type sink interface {
	// folder makes a folder. Its attributes come with finish.
	folder(f *folder) error
	// file makes a regular file of n.size bytes and sets n.sum, perhaps later.
	// Where sparse, runs of zeros take no place.
	file(f *folder, name string, n *node, r io.Reader, sparse bool) error
	// other makes a symlink, fifo or device.
	other(f *folder, name string, n *node) error
	// link gives what stands at base in from another name.
	link(from *folder, base string, to *folder, name string) error
	// remove takes away what stands at a name, all of it.
	remove(f *folder, name string, n *node) error
	// failed tells early of an error that a later call would return.
	failed() error
	// finish writes all that is left: whiteouts and the attributes of folders.
	// From then on the tree is what can be read back.
	finish(root *folder) error
	// opaque is the attribute that tells overlayfs of an opaque folder.
	opaque() string
	close() error
}

// identity is who unpacks.
type identity struct{ uid, gid int }

func self() identity { return identity{os.Geteuid(), os.Getegid()} }

func (id identity) privileged() bool { return id.uid == 0 }
