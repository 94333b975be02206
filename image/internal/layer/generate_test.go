package layer

import (
	"archive/tar"
	"encoding/binary"
	"maps"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

// generator makes stacks of layers with every trick there is. It follows the oracle,
// so that it can refer to what is there and leave out what would be an error.
type generator struct {
	r      *rand.Rand
	o      *oracle // the stack so far
	now    *oracle // and with the layer being made
	layer  []entry
	tricks map[string]int

	tame    bool // leave out what umoci is known to do otherwise
	through bool // an entry of the layer has gone through a symlink of the lower ones
}

func newGenerator(seed uint64) *generator {
	return &generator{r: rand.New(rand.NewPCG(seed, 3)), o: newOracle(), tricks: map[string]int{}}
}

// stack makes one to four layers.
func (g *generator) stack() [][]entry {
	var layers [][]entry
	for range 1 + g.r.IntN(4) {
		g.layer, g.now, g.through = nil, g.o.copy(), false
		for range 4 + g.r.IntN(28) {
			g.trick()
		}
		if g.o.apply(g.layer) != nil {
			panic("the layer was tried before")
		}
		layers = append(layers, g.layer)
	}
	return layers
}

// try adds entries if the layer is good with them.
func (g *generator) try(what string, entries ...entry) {
	next := append(slices.Clip(g.layer), entries...)
	now := g.o.copy()
	if now.apply(next) != nil {
		return
	}
	g.layer, g.now = next, now
	g.tricks[what]++
	for _, e := range entries {
		g.through = g.through || g.o.through(e.Name) || g.o.through(e.Link)
	}
}

// through tells whether a path leads through a symlink.
func (o *oracle) through(p string) bool {
	dir, _ := split(p)
	n := o.root
	for name := range strings.SplitSeq(dir, "/") {
		if n = n.kids[name]; !n.isDir() {
			return n != nil
		}
	}
	return false
}

// safe tells whether a whiteout of p can come now: if a symlink that goes with
// it has led an earlier entry somewhere, the text does not say where that was.
func (g *generator) safe(p string) bool {
	if !g.through {
		return true
	}
	n := g.o.root
	for name := range strings.SplitSeq(p, "/") {
		n = n.kids[name]
	}
	return !n.hasLink()
}

func (n *onode) hasLink() bool {
	for _, kid := range n.kids {
		if kid.hasLink() {
			return true
		}
	}
	return n.mode&unix.S_IFMT == unix.S_IFLNK
}

// pick returns a path of the tree that is of the wanted type.
func (g *generator) pick(o *oracle, want func(n *onode) bool) string {
	var all []string
	var walk func(p string, n *onode)
	walk = func(p string, n *onode) {
		if p != "" && want(n) {
			all = append(all, p)
		}
		for _, name := range slices.Sorted(maps.Keys(n.kids)) {
			walk(join(p, name), n.kids[name])
		}
	}
	walk("", o.root)
	if len(all) == 0 {
		return ""
	}
	return all[g.r.IntN(len(all))]
}

func ofType(kind uint32) func(*onode) bool {
	return func(n *onode) bool { return n.mode&unix.S_IFMT == kind }
}

func noFolder(n *onode) bool { return !n.isDir() }
func anything(*onode) bool   { return true }

// name is a path to put something at: often one that is there.
func (g *generator) name() string {
	switch g.r.IntN(10) {
	case 0, 1:
		if p := g.pick(g.now, anything); p != "" {
			return p
		}
	case 2:
		if p := g.pick(g.now, ofType(unix.S_IFLNK)); p != "" { // through a symlink
			return p + "/" + g.base()
		}
	case 3:
		return g.base() + "/" + g.base() + "/" + g.base() // perhaps with folders nobody mentions
	}
	dir := g.pick(g.now, func(n *onode) bool { return n.isDir() })
	if dir == "" || g.r.IntN(4) == 0 || strings.Count(dir, "/") > 4 {
		return g.base()
	}
	return dir + "/" + g.base()
}

func (g *generator) base() string {
	switch g.r.IntN(40) {
	case 0:
		return strings.Repeat(string(rune('k'+g.r.IntN(3))), 255)
	case 1:
		return "\xff\xfe" + string(rune('a'+g.r.IntN(3)))
	case 2:
		return "ümläut " + string(rune('a'+g.r.IntN(3)))
	case 3:
		return "new\nline"
	}
	return string(rune('a' + g.r.IntN(8)))
}

// spell writes a name in one of the ways that mean the same.
func (g *generator) spell(name string) string {
	switch g.r.IntN(10) {
	case 0:
		return "./" + name
	case 1:
		return "/" + name
	case 2:
		return strings.ReplaceAll(name, "/", "//")
	case 3:
		return "./" + strings.ReplaceAll(name, "/", "/./")
	}
	return name
}

// meta gives an entry attributes.
func (g *generator) meta(e entry) entry {
	modes := []int64{0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0o6711, imagetest.ZeroMode, 0o777}
	e.Mode = modes[g.r.IntN(len(modes))]
	e.UID = []int{0, 0, 1, 1000, 65536, 70000, 1<<31 + 5, math.MaxUint32 - 1}[g.r.IntN(8)]
	e.GID = []int{0, 0, 5, 100, 99999, 1<<31 + 7}[g.r.IntN(6)]
	times := []time.Time{
		time.Unix(1700000000, 0), time.Unix(1500000000, 123456789), time.Unix(0, 1), time.Unix(-1000, 500), time.Unix(1, 999999999),
		time.Unix(5e9, 42), time.Unix(maxTime-1, 7), time.Unix(minTime, 0),
	}
	if g.tame {
		times = times[:3]
	}
	e.ModTime = times[g.r.IntN(len(times))]
	return e
}

func (g *generator) xattrs(e entry, folder bool) entry {
	if g.r.IntN(3) > 0 {
		return e
	}
	all := map[string]string{
		"user.one":                  "1",
		"user.empty":                "",
		"user.long":                 strings.Repeat("x", 300),
		"user.overlay.opaque":       "y",
		"trusted.overlay.opaque":    "y",
		"trusted.overlay.redirect":  "/etc",
		"trusted.overlay.metacopy":  "",
		"security.selinux":          "system_u:object_r:bin_t:s0",
		"security.evm":              "x",
		"trusted.other":             "x",
		"system.posix_acl_access":   acl(1, 7, -1, 2, 5, 1001, 4, 1, -1, 0x10, 7, -1, 0x20, 0, -1),
		"security.capability":       "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"security.capability\x00v3": "\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00",
	}
	if folder {
		delete(all, "security.capability")
		delete(all, "security.capability\x00v3")
		all[aclDefault] = acl(1, 7, -1, 4, 5, -1, 0x20, 0, -1)
	}
	if g.tame {
		maps.DeleteFunc(all, func(k, v string) bool { return v == "" || !visibleXattr(strings.TrimSuffix(k, "\x00v3")) })
	}
	e.Xattrs = map[string]string{}
	for range 1 + g.r.IntN(3) {
		k := slices.Sorted(maps.Keys(all))[g.r.IntN(len(all))]
		name, _, _ := strings.Cut(k, "\x00")
		e.Xattrs[name] = all[k]
	}
	if v, ok := e.Xattrs[aclAccess]; ok {
		mode := max(e.Mode, 0)
		e.Xattrs[aclAccess] = matchACL(v, mode)
	}
	return e
}

// acl builds an ACL of tags, permissions and ids.
func acl(fields ...int) string {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for i := 0; i < len(fields); i += 3 {
		b = binary.LittleEndian.AppendUint16(b, uint16(fields[i]))
		b = binary.LittleEndian.AppendUint16(b, uint16(fields[i+1]))
		b = binary.LittleEndian.AppendUint32(b, uint32(fields[i+2]))
	}
	return string(b)
}

// matchACL makes the ACL above say what the mode says, as in an archive of real files.
func matchACL(v string, mode int64) string {
	b := []byte(v)
	b[6], b[30], b[38] = byte(mode>>6&7), byte(mode>>3&7), byte(mode&7)
	return string(b)
}

// trick adds one or a few entries.
func (g *generator) trick() {
	name := g.name()
	switch k := g.r.IntN(30); {
	case k < 6:
		g.try("folder", g.xattrs(g.meta(entry{Name: g.spell(name) + "/"}), true))
	case k < 12:
		g.try("file", g.xattrs(g.meta(entry{Name: g.spell(name), Type: tar.TypeReg, Body: g.body()}), false))
	case k < 15:
		g.try("symlink", g.meta(entry{Name: g.spell(name), Link: g.target()}))
	case k < 18:
		if target := g.pick(g.now, noFolder); target != "" {
			g.link("hard link", name, target)
		}
	case k == 18:
		if target := g.pick(g.o, noFolder); target != "" {
			g.link("hard link to a lower file", name, target)
		}
	case k == 19:
		g.try("fifo", g.meta(entry{Name: name, Type: tar.TypeFifo}))
	case k == 20:
		g.try("device", g.meta(entry{Name: name, Type: []byte{tar.TypeChar, tar.TypeBlock}[g.r.IntN(2)],
			Major: []int64{1, 8, 259, 4095}[g.r.IntN(4)], Minor: []int64{1, 3, 300, 1<<20 - 1}[g.r.IntN(4)]}))
	case k < 25:
		g.whiteout()
	case k == 25:
		if dir := g.pick(g.o, func(n *onode) bool { return n.isDir() }); dir != "" && g.plain(dir) && g.safe(dir) {
			g.try("opaque", entry{Name: dir + "/" + whiteoutOpaque})
		}
	case k == 26:
		g.try("replaced twice", g.meta(entry{Name: name + "/"}), g.meta(entry{Name: join(name, g.base()), Type: tar.TypeReg, Body: "in"}),
			g.meta(entry{Name: name, Type: tar.TypeReg, Body: "between"}), g.meta(entry{Name: name + "/", Mode: 0o700}))
	case k == 27:
		g.try("root", g.meta(entry{Name: "./"}))
	case k == 28 && g.tame:
	case k == 28:
		g.try("device 0:0", entry{Name: name, Type: tar.TypeChar})
	default:
		if g.o.root.kids[name] == nil { // an untouched folder of nobody's
			g.try("whiteout of nothing", entry{Name: "nothing/"}, entry{Name: "nothing/.wh." + g.base()})
		}
	}
}

func (g *generator) link(what, name, target string) {
	if g.plain(target) {
		g.try(what, entry{Name: name, Link: g.spell(target), Type: tar.TypeLink})
	}
}

// whiteout deletes something of the layers below. Whiteouts through the symlinks of
// their own layer are not generated: the text does not say when these count.
func (g *generator) whiteout() {
	target := g.pick(g.o, anything)
	if target == "" || !g.plain(target) || !g.safe(target) {
		return
	}
	dir, base := path.Split(target)
	e := entry{Name: dir + whiteoutPrefix + base}
	switch g.r.IntN(4) {
	case 0:
		e.Body = "content"
	case 1:
		e.Type, e.Link = tar.TypeLink, dir+whiteoutPrefix+"other"
	}
	g.try("whiteout", e)
	if g.r.IntN(3) == 0 {
		g.try("whiteout, then anew", g.meta(entry{Name: target, Type: tar.TypeReg, Body: "anew"}))
	}
}

// plain tells whether a folder is there before and after this layer, without
// symlinks on the way.
func (g *generator) plain(p string) bool {
	for _, o := range []*oracle{g.o, g.now} {
		n := o.root
		for name := range strings.SplitSeq(path.Dir(p), "/") {
			if name == "." {
				continue
			}
			if n = n.kids[name]; !n.isDir() {
				return o == g.o // it may be new
			}
		}
	}
	return true
}

func (g *generator) body() string {
	switch g.r.IntN(12) {
	case 0:
		return ""
	case 1:
		return strings.Repeat("0123456789abcde\n", 4096+g.r.IntN(9)) // larger than the small ones
	case 2:
		return strings.Repeat("p", 4096)
	}
	return strings.Repeat(string(rune('a'+g.r.IntN(26))), g.r.IntN(6000))
}

func (g *generator) target() string {
	p := g.pick(g.now, anything)
	switch k := g.r.IntN(8); {
	case k < 2 && p != "":
		return "/" + p
	case k < 4 && p != "":
		return p
	case k == 4:
		return "../" + g.base()
	case k == 5:
		return "../../../" + g.base() + "/" + g.base()
	case k == 6:
		return "."
	}
	return g.base()
}
