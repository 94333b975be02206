package layer

import (
	"archive/tar"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

// oracle is what an image means, in memory: the layers applied one after the other
// to one tree, following the text of the OCI image specification ("Image Layer
// Filesystem Changeset"). It shares nothing with the unpacker.
//
// The text leaves open what whiteouts do to entries of their own layer but that they
// "MUST only apply to resources in lower/parent layers": so all the whiteouts of
// a layer are applied before its entries.
type oracle struct{ root *onode }

// onode is a file of the oracle; the same under several names is a hard link.
type onode struct {
	mode     uint32
	uid, gid int
	mtime    time.Time
	body     string
	target   string
	rdev     uint64
	xattrs   map[string]string
	kids     map[string]*onode
	implicit bool // no entry has ever described this folder
}

func newOracle() *oracle {
	return &oracle{&onode{mode: unix.S_IFDIR | 0o755, kids: map[string]*onode{}, implicit: true}}
}

func (n *onode) isDir() bool { return n != nil && n.kids != nil }

// has tells whether a folder is in n.
func (n *onode) has(dir *onode) bool {
	if n == dir {
		return true
	}
	if n != nil {
		for _, kid := range n.kids {
			if kid.isDir() && kid.has(dir) {
				return true
			}
		}
	}
	return false
}

// copy is a tree of its own, so that an entry can be tried.
func (o *oracle) copy() *oracle {
	seen := map[*onode]*onode{}
	var dup func(n *onode) *onode
	dup = func(n *onode) *onode {
		if c, ok := seen[n]; ok {
			return c
		}
		c := *n
		seen[n] = &c
		if n.kids != nil {
			c.kids = map[string]*onode{}
			for name, kid := range n.kids {
				c.kids[name] = dup(kid)
			}
		}
		return &c
	}
	return &oracle{dup(o.root)}
}

// dir walks to the folder p inside the root; symlinks are followed. Where make,
// missing ones are made.
func (o *oracle) dir(p string, make bool) (*onode, error) {
	stack, todo := []*onode{o.root}, strings.Split(p, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		cur := stack[len(stack)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		next, ok := cur.kids[name]
		switch {
		case !ok && !make:
			return nil, unix.ENOENT
		case !ok:
			next = &onode{mode: unix.S_IFDIR | 0o755, kids: map[string]*onode{}, implicit: true}
			cur.kids[name] = next
			stack = append(stack, next)
		case next.isDir():
			stack = append(stack, next)
		case next.mode&unix.S_IFMT == unix.S_IFLNK:
			if links++; links > maxLinks {
				return nil, unix.ELOOP
			}
			if strings.HasPrefix(next.target, "/") {
				stack = stack[:1]
			}
			todo = append(strings.Split(next.target, "/"), todo...)
		default:
			return nil, unix.ENOTDIR
		}
	}
	return stack[len(stack)-1], nil
}

func split(name string) (dir, base string) {
	dir, base = path.Split(path.Clean("/" + name))
	return strings.Trim(dir, "/"), base
}

// apply applies a layer.
func (o *oracle) apply(entries []entry) error {
	for _, e := range entries {
		o.whiteout(e)
	}
	for _, e := range entries {
		if err := o.entry(e); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

func (o *oracle) whiteout(e entry) {
	dir, base := split(e.Name)
	if !strings.HasPrefix(base, whiteoutPrefix) {
		return
	}
	d, err := o.dir(dir, false)
	switch {
	case err != nil:
	case base == whiteoutOpaque:
		clear(d.kids)
	default:
		delete(d.kids, strings.TrimPrefix(base, whiteoutPrefix))
	}
}

func (o *oracle) entry(e entry) error {
	h := headerOf(e)
	dir, base := split(e.Name)
	if base == "" {
		o.root.describe(h)
		return nil
	}
	d, err := o.dir(dir, true)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return nil
	}
	old := d.kids[base]
	switch h.Typeflag {
	case tar.TypeDir:
		if !old.isDir() {
			old = &onode{kids: map[string]*onode{}}
			d.kids[base] = old
		}
		old.describe(h)
		return nil
	case tar.TypeLink:
		tdir, tbase := split(e.Link)
		td, err := o.dir(tdir, true)
		if err != nil {
			return err
		}
		n := td.kids[tbase]
		if n == nil || n.isDir() || n == old {
			return unix.EINVAL
		}
		if old.has(td) {
			return unix.EINVAL // the target goes before the link is made
		}
		d.kids[base] = n
		return nil
	}
	n := &onode{body: e.Body, target: e.Link}
	n.describe(h)
	d.kids[base] = n
	if n.mode&unix.S_IFMT == unix.S_IFCHR && n.rdev == 0 {
		delete(d.kids, base) // cannot be told from a whiteout: see doc.go
	}
	return nil
}

// headerOf reads an entry as it comes out of an archive.
func headerOf(e entry) *tar.Header {
	h, err := tar.NewReader(strings.NewReader(string(imagetest.Archive(e)))).Next()
	if err != nil {
		panic(err)
	}
	return h
}

func (n *onode) describe(h *tar.Header) {
	kinds := map[byte]uint32{
		tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK,
		tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO,
	}
	n.mode = kinds[h.Typeflag] | uint32(h.Mode)
	n.uid, n.gid, n.mtime, n.implicit, n.xattrs = h.Uid, h.Gid, h.ModTime, false, nil
	switch h.Typeflag {
	case tar.TypeSymlink:
		n.mode = unix.S_IFLNK | 0o777
	case tar.TypeChar, tar.TypeBlock:
		n.rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	case tar.TypeReg, tar.TypeDir:
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, paxXattr); ok && visibleXattr(name) {
				if n.xattrs == nil {
					n.xattrs = map[string]string{}
				}
				n.xattrs[name] = v
			}
		}
	}
}

// visibleXattr tells which attributes are compared: what layers must not set is
// not to be seen, and labels are the host's.
func visibleXattr(name string) bool {
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") || name == capXattr || strings.HasPrefix(name, "system.posix_acl_")
}

// inventory is a tree, one line a path, like mtree(5).
type inventory map[string]string

func (o *oracle) inventory() inventory {
	inv, names := inventory{}, map[*onode][]string{}
	var walk func(p string, n *onode)
	walk = func(p string, n *onode) {
		names[n] = append(names[n], p)
		for _, name := range slices.Sorted(maps.Keys(n.kids)) {
			walk(join(p, name), n.kids[name])
		}
	}
	walk("", o.root)
	o.root.implicit, o.root.xattrs = true, nil // of the root, image.Prepare carries owner and mode
	for n, ps := range names {
		slices.Sort(ps)
		for _, p := range ps {
			inv[p] = n.line(ps)
		}
	}
	return inv
}

func (n *onode) line(names []string) string {
	at := n.mtime
	if n.implicit {
		at = time.Time{}
	}
	return line(n.mode, n.uid, n.gid, at, n.body, n.target, n.rdev, n.xattrs, names)
}

// line describes a file. A time of zero is not compared: it is that of a
// folder that no layer describes.
func line(mode uint32, uid, gid int, at time.Time, body, target string, rdev uint64, xattrs map[string]string, names []string) string {
	s := fmt.Sprintf("%o %d:%d", mode, uid, gid)
	if at.IsZero() {
		s += " time any"
	} else {
		s += fmt.Sprintf(" time %d.%09d", at.Unix(), at.Nanosecond())
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		s += fmt.Sprintf(" %d bytes %.60q", len(body), body)
	case unix.S_IFLNK:
		s += fmt.Sprintf(" to %q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		s += fmt.Sprintf(" device %d:%d", unix.Major(rdev), unix.Minor(rdev))
	}
	for _, k := range slices.Sorted(maps.Keys(xattrs)) {
		s += fmt.Sprintf(" %s=%x", k, xattrs[k])
	}
	if len(names) > 1 && mode&unix.S_IFMT != unix.S_IFDIR {
		s += fmt.Sprintf(" also %q", names)
	}
	return s
}

// diff says how two inventories differ.
func (inv inventory) diff(want inventory) []string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(want)) {
		got, ok := inv[p]
		if ok && strings.Contains(want[p], " time any") {
			got = anyTime.ReplaceAllString(got, " time any")
		}
		if got != want[p] {
			out = append(out, fmt.Sprintf("%q\n   is   %s\n   want %s", p, got, want[p]))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(inv)) {
		if _, ok := want[p]; !ok {
			out = append(out, fmt.Sprintf("%q\n   is   %s\n   want nothing", p, inv[p]))
		}
	}
	return out
}
