// Package version tells which build a program is. All programs of one build say the same, and they
// tell it apart from the next one: bug reports and `wherry ctl doctor` name it.
package version

import "runtime/debug"

// Text is the version of this program: what the linker was told, else the module's version, which `go build` and
// `go install` know by themselves, else the commit.
func Text(linked string) string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	return of(info)
}

const unknown = "devel"

func of(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return unknown
}
