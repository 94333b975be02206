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
		below := prefix + k.Name + "."
		if strings.HasPrefix(k.Type, "list") {
			below = prefix + k.Name + "[]."
		} else if k.Name == "containers" {
			below = prefix + k.Name + ".NAME."
		} else if k.Name == "depends_on" {
			below = prefix + k.Name + "." + map[bool]string{true: "UNIT", false: "NAME"}[prefix == ""] + "."
		} else if k.Name == "ulimits" {
			below = prefix + k.Name + ".NAME."
		}
		rows(b, k.Keys, below, pending)
	}
}
