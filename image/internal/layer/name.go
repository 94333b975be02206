package layer

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxName   = 255  // bytes of one component: NAME_MAX of every Linux file system
	maxPath   = 4095 // bytes of a path, as the kernel takes it in one call
	maxLinks  = 40   // symlinks in one name, as in the kernel
	maxTarget = 4095

	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // aufs's own files, of no use elsewhere
)

var errDotDot = errors.New(`name contains ".."`)

// splitName returns the clean parent and the last component of an entry's name.
// Names are cleaned as text before anything is looked up, as all the common
// engines do: "a/../b" is "b" whatever a is.
func splitName(name string) (dir, base string, err error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", "", errors.New("name contains a zero byte")
	}
	if isClean(name) {
		i := strings.LastIndexByte(name, '/')
		return name[:max(i, 0)], name[i+1:], nil
	}
	name = path.Clean(name)
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", "", errDotDot
	}
	if name = strings.TrimPrefix(name, "/"); name == "." {
		name = ""
	}
	dir, base = path.Split(name)
	return strings.TrimSuffix(dir, "/"), base, nil
}

// isClean tells whether path.Clean would return a relative name as it is; it is
// asked for every entry.
func isClean(name string) bool {
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		switch name[start:i] {
		case "", ".", "..":
			return false
		}
		start = i + 1
	}
	return true
}

// underReserved tells whether p lies in a folder that aufs kept for itself.
func underReserved(p string) bool {
	return strings.HasPrefix(p, whiteoutMeta) || strings.Contains(p, "/"+whiteoutMeta)
}

// underWhiteout tells whether a folder of p has a name that is a whiteout's.
func underWhiteout(p string) bool {
	return strings.HasPrefix(p, whiteoutPrefix) || strings.Contains(p, "/"+whiteoutPrefix)
}

// checkName refuses what no file system takes, so that both forms refuse the same.
func checkName(parent *folder, name string) error {
	if len(name) > maxName || parent.pathLen()+1+len(name) > maxPath {
		return unix.ENAMETOOLONG
	}
	return nil
}
