package unit

import (
	"encoding/json"
	"fmt"

	"github.com/wherry-run/wherry/cgroup"
)

// LimitsOf names what limits the containers of a unit have: equal names, equal
// limits. It is never empty.
func LimitsOf(u Unit) string {
	type limits struct {
		Name   string        `json:"name"`
		Limits cgroup.Limits `json:"limits,omitzero"`
	}
	list := make([]limits, len(u.Containers))
	for i, c := range u.Containers {
		list[i] = limits{c.Name, c.Limits}
	}
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Sprintf("%#v", list) // a number that is not one
	}
	return string(b)
}
