package unit

import (
	"cmp"
	"slices"
)

// started is the condition under which a dependency is met: it runs.
const started = "started"

// dependencyTable is what depends_on says of one unit.
var dependencyTable = table[Dependency]{fields: []field[Dependency]{
	known("condition", "word", started, "What it must have reached: started.", func(p *reader, n *node, to *Dependency) {
		word, ok := p.oneOf(n, started, "healthy", "completed_successfully", "service_started", "service_healthy", "service_completed_successfully")
		switch {
		case !ok:
		case word == started || word == "service_started":
			to.Condition = started
		default:
			p.bad(n, notYet(word))
		}
	}),
	known("required", "boolean", "true", "Whether this unit waits even for one that does not come.", func(p *reader, n *node, to *Dependency) {
		p.flag(n, &to.Required)
	}),
	later[Dependency]("restart", "boolean", "Whether this unit is restarted with it."),
}}

func (p *reader) setDependsOn(n *node, d *draft) {
	var deps []Dependency
	add := func(at *node, dep Dependency) {
		if err := CheckName(dep.Unit); err != nil {
			f := err.(*fault)
			p.fail(at, n.key, faultf(f.hint, "%s: %s", n.key, f.message))
			return
		}
		if slices.ContainsFunc(deps, func(o Dependency) bool { return o.Unit == dep.Unit }) {
			p.fail(at, n.key, faultf("", "%s: %s is given twice", n.key, dep.Unit))
			return
		}
		deps = append(deps, dep)
	}
	switch n.shape {
	case list:
		for _, item := range n.items {
			if name, ok := p.word(item); ok {
				add(item, Dependency{Unit: name, Condition: started, Required: true})
			}
		}
	case mapping:
		for _, pr := range n.pairs {
			dep := Dependency{Unit: pr.name.text, Condition: started, Required: true}
			if pr.value.shape != null { // `redis:` alone means what a list's `- redis` means
				dependencyTable.fill(p, pr.value, &dep)
			}
			add(pr.name, dep)
		}
	default:
		p.badf(n, "", "wants a list or a map, not %s", n.kind())
	}
	// The order has no meaning, and equal units have equal bytes.
	slices.SortFunc(deps, func(a, b Dependency) int { return cmp.Compare(a.Unit, b.Unit) })
	d.unit.DependsOn = deps
}
