package bundle

import (
	"fmt"
	"strings"
)

// SliceOf is the slice of systemd in which scopes stand for a keeper with that parent group: the
// one that the group is in, else one of its own, so that two daemons do not meet.
func SliceOf(parent string) string {
	words := strings.Split(strings.Trim(parent, "/"), "/")
	for i := len(words) - 1; i >= 0; i-- {
		if strings.HasSuffix(words[i], ".slice") {
			return words[i]
		}
	}
	// A dash would make it a slice in another one.
	return strings.ReplaceAll(UnitWord(strings.Join(words, "_")), "-", "_") + ".slice"
}

// UnitWord escapes what the name of a unit cannot have; see systemd.unit(5). A
// dash may stay: drop-ins for wherry-web.1-.scope then hold for all runs of web.1.
func UnitWord(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_-.", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
