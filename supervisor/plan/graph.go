package plan

import (
	"slices"
	"strings"
)

// graph is who depends on whom.
type graph struct {
	circle map[string][]string // unit -> the sorted members of its circle, itself included
	users  map[string][]string // unit -> the units that depend on it, sorted
}

// newGraph reads the dependencies of the units, which are sorted by name.
func newGraph(units []*wanted) graph {
	g := graph{circle: map[string][]string{}, users: map[string][]string{}}
	uses := make(map[string][]string, len(units))
	known := make(map[string]bool, len(units))
	for _, u := range units {
		known[u.name] = true
	}
	for _, u := range units {
		for _, d := range u.Unit.DependsOn {
			if !known[d.Unit] || slices.Contains(uses[u.name], d.Unit) {
				continue
			}
			uses[u.name] = append(uses[u.name], d.Unit)
			g.users[d.Unit] = append(g.users[d.Unit], u.name)
		}
	}
	c := circles{uses: uses, index: make(map[string]int, len(units)), low: make(map[string]int, len(units)), found: g.circle}
	for _, u := range units {
		if c.index[u.name] == 0 {
			c.visit(u.name)
		}
	}
	return g
}

// together tells whether two units stand in the same circle.
func (g graph) together(a, b string) bool { return slices.Contains(g.circle[a], b) }

// round names a unit's circle for people; empty if it stands in none.
func (g graph) round(name string) string {
	switch c := g.circle[name]; len(c) {
	case 0:
		return ""
	case 1:
		return "depends on itself"
	default:
		return "depends_on goes in a circle: " + strings.Join(c, ", ")
	}
}

// circles finds strongly connected components by Tarjan's algorithm.
type circles struct {
	uses       map[string][]string
	index, low map[string]int // numbers from 1
	stack      []string
	found      map[string][]string
}

func (c *circles) visit(v string) {
	n := len(c.index) + 1
	c.index[v], c.low[v] = n, n
	c.stack = append(c.stack, v)
	for _, w := range c.uses[v] {
		switch {
		case c.index[w] == 0:
			c.visit(w)
			c.low[v] = min(c.low[v], c.low[w])
		case slices.Contains(c.stack, w):
			c.low[v] = min(c.low[v], c.index[w])
		}
	}
	if c.low[v] != c.index[v] {
		return
	}
	at := slices.Index(c.stack, v)
	members := slices.Clone(c.stack[at:])
	c.stack = c.stack[:at]
	if len(members) == 1 && !slices.Contains(c.uses[v], v) {
		return
	}
	slices.Sort(members)
	for _, m := range members {
		c.found[m] = members
	}
}
