package unit

import (
	"fmt"
	"strings"
)

// Keys lists every key of a unit file, those that are not supported yet
// included, in the order of the reference.
func Keys() []Key { return unitTable.keys() }

// Reference is the page of all keys, in Markdown, made of the table that the
// parser reads.
func Reference() string {
	var b strings.Builder
	b.WriteString("# Keys of a unit file\n\n")
	b.WriteString("A key that is not listed is an error, unless it begins with `x-`.\n\n")
	b.WriteString("| key | type | default | |\n|---|---|---|---|\n")
	var pending []string
	rows(&b, Keys(), "", &pending)
	b.WriteString("\nNot supported yet: `" + strings.Join(pending, "` `") + "`.\n")
	return b.String()
}

// rows writes the keys of a map and those below them.
func rows(b *strings.Builder, keys []Key, prefix string, pending *[]string) {
	for _, k := range keys {
		if k.Later {
			*pending = append(*pending, prefix+k.Name)
			continue
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", prefix+k.Name, k.Type, k.Default, k.Text)
		rows(b, k.Keys, Below(prefix, k), pending)
	}
}

// Below is the path that leads to the keys below k, which itself stands at
// prefix: "volumes[].".
func Below(prefix string, k Key) string {
	at := prefix + k.Name
	switch {
	case strings.HasPrefix(k.Type, "list"):
		return at + "[]."
	case k.Name == "containers" || k.Name == "ulimits" || k.Name == "depends_on" && prefix != "":
		return at + ".NAME."
	case k.Name == "depends_on":
		return at + ".UNIT."
	}
	return at + "."
}
