// Package overlay answers: which mounts lay these layers over each other?
//
// It performs none of them: the mounts are plain values.
package overlay

import (
	"bytes"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// MaxLower is how many lower layers overlayfs takes: OVL_MAX_STACK of the kernel's
// fs/overlayfs.
const MaxLower = 500

// Layer is one lower layer.
type Layer struct {
	Dir   string // the folder with its files
	Image string // of the form EROFS: what is to be mounted at Dir first
}

// Stack is what is to be mounted.
type Stack struct {
	Lower []Layer // the topmost first
	Empty string  // an empty folder, which pads a stack that overlayfs finds too small
	Upper string  // "": read-only
	Work  string
}

// Mounts returns the mounts of the images, then one overlay mount on "/". Its
// options have one "lowerdir+=DIR" per layer, the topmost first, then "upperdir="
// and "workdir=": the form of fsconfig(2) from Linux 6.7 on, in which characters in
// paths and the length of all together are not limited. For an older kernel, join
// the "lowerdir+" values with ":" into one "lowerdir" (with "\" before ":" and "\"
// in paths).
func (s Stack) Mounts() []specs.Mount {
	lower := s.Lower
	if s.Upper == "" && len(lower) == 0 {
		return []specs.Mount{{Destination: "/", Type: "bind", Source: s.Empty, Options: []string{"bind", "ro"}}}
	}
	// Without an upper folder overlayfs wants two lower ones; a plain bind
	// mount of one would show its whiteouts as devices.
	if len(lower) == 0 || s.Upper == "" && len(lower) == 1 {
		lower = append(lower[:len(lower):len(lower)], Layer{Dir: s.Empty})
	}
	var mounts []specs.Mount
	m := specs.Mount{Destination: "/", Type: "overlay", Source: "overlay"}
	for _, l := range lower {
		if l.Image != "" {
			mounts = append(mounts, specs.Mount{Destination: l.Dir, Type: "erofs", Source: l.Image, Options: []string{"ro"}})
		}
		m.Options = append(m.Options, "lowerdir+="+l.Dir)
	}
	if s.Upper == "" {
		m.Options = append(m.Options, "ro")
	} else {
		m.Options = append(m.Options, "upperdir="+s.Upper, "workdir="+s.Work)
	}
	if len(mounts) > 0 {
		// Each image is a file system of its own. Without this, files of different
		// layers were on different devices in the eyes of du -x, find -xdev or tar
		// --one-file-system, and a file that is written to changed its number.
		m.Options = append(m.Options, "xino=on")
	}
	m.Options = append(m.Options, hostOptions("/sys/module/overlay/parameters")...)
	return append(mounts, m)
}

// hostOptions switches off what some distributions switch on for all overlays:
// the index makes a stack refuse an upper folder whose layers were unpacked
// again, and redirects and metadata copies are not to be trusted in layers.
func hostOptions(parameters string) []string {
	var off []string
	for _, name := range []string{"index", "metacopy"} {
		if b, err := os.ReadFile(parameters + "/" + name); err == nil && bytes.HasPrefix(b, []byte("Y")) {
			off = append(off, name+"=off")
		}
	}
	return off
}
