package unit

import (
	"cmp"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// The types of a Volume.
const (
	bind   = "bind"
	volume = "volume"
	tmpfs  = "tmpfs"
)

// String gives the short form, or words for a tmpfs, which has none.
func (v Volume) String() string {
	text := v.Target
	if v.Source != "" {
		text = v.Source + ":" + text
	}
	if v.Type == tmpfs {
		text = "tmpfs " + text
		if v.Size > 0 {
			text += " size " + Size(v.Size).String()
		}
		if v.Mode > 0 {
			text += fmt.Sprintf(" mode %04o", v.Mode)
		}
	}
	if v.ReadOnly {
		text += ":ro"
	}
	return text
}

// parseVolume reads the short form [SOURCE:]TARGET[:OPTIONS].
func parseVolume(text, dir string) (Volume, error) {
	parts := strings.Split(text, ":")
	if len(parts) > 3 {
		return Volume{}, faultf("write SOURCE:TARGET or SOURCE:TARGET:ro", "%q has too many parts", text)
	}
	v := Volume{Type: volume}
	source, target := "", parts[0]
	if len(parts) > 1 {
		source, target = parts[0], parts[1]
	}
	if len(parts) == 3 {
		if err := v.options(parts[2]); err != nil {
			return Volume{}, err
		}
	}
	if len(parts) > 1 {
		if err := v.from(source, dir); err != nil {
			return Volume{}, err
		}
	}
	var err error
	v.Target, err = parseMountPoint(target)
	return v, err
}

// from sets the source: a path of the host or a volume's name.
func (v *Volume) from(source, dir string) error {
	if strings.HasPrefix(source, "~") {
		return faultf("write the path out", "%q: ~ is nobody's home here", source)
	}
	isPath := strings.HasPrefix(source, "/") || source == "." || source == ".." ||
		strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../")
	switch {
	case source == "":
		return faultf("", "the source is empty")
	case !isPath && isVolumeName(source):
		v.Source = source
		return nil
	case !isPath:
		return faultf("a path begins with / or ./", "%q is not a volume's name", source)
	}
	v.Type = bind
	return v.path(source, dir)
}

// path sets the source to a path of the host, relative to dir.
func (v *Volume) path(source, dir string) error {
	if !path.IsAbs(source) {
		if !path.IsAbs(dir) {
			return faultf("write an absolute path", "%q: the folder it starts from is not known", source)
		}
		source = path.Join(dir, source)
	}
	v.Source = path.Clean(source)
	return nil
}

func (v *Volume) options(text string) error {
	for option := range strings.SplitSeq(text, ",") {
		switch option {
		case "ro":
			v.ReadOnly = true
		case "rw":
			v.ReadOnly = false
		case "z", "Z", "nocopy", "shared", "rshared", "slave", "rslave", "private", "rprivate":
			return notYet("option " + option)
		default:
			return faultf("it is ro or rw", "unknown option %q", option)
		}
	}
	return nil
}

// parseTarget reads an absolute path in the container.
func parseTarget(text string) (string, error) {
	if !path.IsAbs(text) {
		return "", faultf("it begins with /", "%q is not an absolute path", text)
	}
	return path.Clean(text), nil
}

// parseMountPoint reads where something is mounted in the container.
func parseMountPoint(text string) (string, error) {
	target, err := parseTarget(text)
	if err != nil {
		return "", err
	}
	switch target {
	case "/", "/proc", "/sys", "/dev":
		return "", faultf("", "nothing can be mounted over %s", target)
	}
	return target, nil
}

// mountDraft is a volume's long form while it is read.
type mountDraft struct {
	Volume
	source *node
}

var tmpfsTable = table[mountDraft]{fields: []field[mountDraft]{
	known("size", "size", "half of the memory", "Its size.", (*reader).setMountSize),
	known("mode", "octal", "1777", "Permissions of its top folder.", (*reader).setMountMode),
}}

// volumeTable is the long form of a volume.
var volumeTable = table[mountDraft]{
	fields: []field[mountDraft]{
		known("type", "word", "by the source", "bind, volume or tmpfs.", func(p *reader, n *node, to *mountDraft) {
			to.Type, _ = p.oneOf(n, bind, volume, tmpfs)
		}),
		known("source", "path or name", "", "A path of the host, or a volume's name.", func(p *reader, n *node, to *mountDraft) {
			if _, ok := p.word(n); ok {
				to.source = n
			}
		}),
		known("target", "path", "", "Where it is mounted.", func(p *reader, n *node, to *mountDraft) {
			to.Target, _ = parsed(p, n, parseMountPoint)
		}),
		known("read_only", "boolean", "false", "Whether it cannot be written to.", func(p *reader, n *node, to *mountDraft) {
			p.flag(n, &to.ReadOnly)
		}),
		known("size", "size", "half of the memory", "Of a tmpfs.", (*reader).setMountSize),
		known("mode", "octal", "1777", "Of a tmpfs.", (*reader).setMountMode),
		into("tmpfs", "Size and mode, as Compose writes them.", tmpfsTable, func(m *mountDraft) *mountDraft { return m }),
		later[mountDraft]("bind", "map", "Options of a bind mount."),
		later[mountDraft]("volume", "map", "Options of a volume."),
		later[mountDraft]("consistency", "word", "Means nothing on Linux."),
	},
	elsewhere: map[string]string{"src": "write source", "dst": "write target", "destination": "write target", "readonly": "write read_only"},
}

func (p *reader) setMountSize(n *node, to *mountDraft) {
	to.Size, _ = parsed(p, n, parseTmpfsSize)
}

func parseTmpfsSize(text string) (int64, error) {
	size, err := ParseSize(text)
	if err == nil && size < 4<<10 {
		err = faultf("the least is 4KiB", "%s is too little", text)
	}
	return size, err
}

func (p *reader) setMountMode(n *node, to *mountDraft) { to.Mode, _ = parsed(p, n, parseMode) }

func parseMode(text string) (uint32, error) {
	mode, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil || mode > 0o7777 {
		return 0, faultf("write it like 1777", "%q is not a mode", text)
	}
	return uint32(mode), nil
}

func (p *reader) setVolumes(n *node, d *draft) {
	if n.shape != list {
		p.badf(n, "write [...]", "wants a list, not %s", n.kind())
		return
	}
	for _, item := range n.items {
		before := len(p.errs)
		v := p.volume(item)
		if len(p.errs) > before {
			continue
		}
		if err := addVolume(d.app, v); err != nil {
			p.bad(item, err)
		}
	}
}

// addVolume adds a volume unless its place is taken.
func addVolume(c *Container, v Volume) error {
	for _, other := range c.Volumes {
		if other.Target == v.Target {
			return faultf("", "%s is mounted twice", v.Target)
		}
	}
	c.Volumes = append(c.Volumes, v)
	return nil
}

func (p *reader) volume(n *node) Volume {
	if n.shape != mapping {
		v, _ := parsed(p, n, func(text string) (Volume, error) { return parseVolume(text, p.dir()) })
		return v
	}
	var m mountDraft
	before := len(p.errs)
	volumeTable.fill(p, n, &m)
	if len(p.errs) > before {
		return Volume{}
	}
	if m.Target == "" {
		p.badf(n, "", "target is missing")
	}
	if m.source != nil {
		if err := m.take(m.source.text, p.dir()); err != nil {
			p.bad(m.source, err)
		}
	}
	m.Type = cmp.Or(m.Type, volume)
	switch {
	case m.Type == bind && m.source == nil:
		p.badf(n, "", "source is missing")
	case m.Type != tmpfs && (m.Size > 0 || m.Mode > 0):
		p.badf(n, "", "size and mode belong to type: tmpfs")
	}
	return m.Volume
}

// take sets the source as the type says, or the type as the source says.
func (m *mountDraft) take(source, dir string) error {
	switch m.Type {
	case tmpfs:
		return faultf("leave it out", "a tmpfs has no source")
	case bind:
		if strings.HasPrefix(source, "~") {
			return m.from(source, dir)
		}
		return m.path(source, dir)
	case volume:
		if !isVolumeName(source) {
			return faultf("write type: bind for a path", "%q is not a volume's name", source)
		}
		m.Source = source
		return nil
	}
	return m.from(source, dir)
}

// dir is the folder that relative host paths start from.
func (p *reader) dir() string { return cmp.Or(p.o.Dir, path.Dir(p.file)) }
