package unit

import (
	"slices"
	"strings"
)

// OnlyContainer is the name of the container of a unit that does not have the
// key containers.
const OnlyContainer = "app"

// The conditions of a dependency between containers, see ContainerDependency.
const (
	Started               = started
	CompletedSuccessfully = "completed_successfully"
)

// Container finds a container by its name; nil if there is none.
func (u *Unit) Container(name string) *Container {
	for i := range u.Containers {
		if u.Containers[i].Name == name {
			return &u.Containers[i]
		}
	}
	return nil
}

// Essential tells whether the container's end is the end of the run. One that is
// alone always is.
func (u *Unit) Essential(c *Container) bool { return c.Essential || len(u.Containers) == 1 }

// Awaited tells whether another container waits for this one to complete.
func (u *Unit) Awaited(name string) bool {
	return slices.ContainsFunc(u.Containers, func(c Container) bool {
		return slices.Contains(c.DependsOn, ContainerDependency{Container: name, Condition: CompletedSuccessfully})
	})
}

// Leading is the container that stands for the unit where there is room for one:
// the first that is essential.
func (u *Unit) Leading() *Container {
	for i := range u.Containers {
		if u.Essential(&u.Containers[i]) {
			return &u.Containers[i]
		}
	}
	return &u.Containers[0]
}

// StartOrder gives the containers in the order of their start: each behind those
// that it depends on, and otherwise by name. Those of a circle come last.
func StartOrder(containers []Container) []*Container {
	var order []*Container
	placed := map[string]bool{}
	known := map[string]bool{}
	for i := range containers {
		known[containers[i].Name] = true
	}
	ready := func(c *Container) bool {
		return !placed[c.Name] && !slices.ContainsFunc(c.DependsOn, func(d ContainerDependency) bool {
			return known[d.Container] && !placed[d.Container]
		})
	}
	for {
		at := slices.IndexFunc(containers, func(c Container) bool { return ready(&c) })
		if at < 0 {
			break
		}
		placed[containers[at].Name] = true
		order = append(order, &containers[at])
	}
	for i := range containers {
		if !placed[containers[i].Name] {
			order = append(order, &containers[i])
		}
	}
	return order
}

// containerOwn are the keys that only one of several containers has.
var containerOwn = table[draft]{fields: []field[draft]{
	known("essential", "boolean", "true, or false for one that another waits for to complete",
		"Whether its end is the end of the run. One that is not essential is restarted by itself.", (*reader).setEssential),
	withKeys(known("depends_on", "map or list", "", "Containers of the unit that come first, by name.", (*reader).setAfter), containerDependencyTable.keys()),
}}

// containerTable is every key under containers.NAME.
var containerTable = table[draft]{fields: slices.Concat(containerFields, containerOwn.fields)}

// containerDependencyTable is what depends_on says of another container.
var containerDependencyTable = table[ContainerDependency]{fields: []field[ContainerDependency]{
	known("condition", "word", Started, "What it must have reached: started (its program runs) or completed_successfully (it ended with code 0).",
		func(p *reader, n *node, to *ContainerDependency) {
			word, ok := p.oneOf(n, Started, "healthy", CompletedSuccessfully, "service_started", "service_healthy", "service_completed_successfully")
			switch word = strings.TrimPrefix(word, "service_"); {
			case !ok:
			case word == "healthy":
				p.bad(n, notYet(word))
			default:
				to.Condition = word
			}
		}),
	later[ContainerDependency]("required", "boolean", "Whether it is waited for even if it does not come."),
	later[ContainerDependency]("restart", "boolean", "Whether this container is restarted with it."),
}}

// containerDraft is one of several containers while its file is read.
type containerDraft struct {
	draft
	at        *node // its keys
	name      *node
	essential *node
	value     bool // of essential
	after     map[string]*node
}

// setContainers reads the key containers. What concerns several of them is checked
// at the end, by containers.
func (p *reader) setContainers(n *node, d *draft) {
	d.several = n
	const hint = "write containers: {NAME: {image: ...}}"
	if n.shape != mapping {
		p.badf(n, hint, "wants a map of containers, not %s", n.kind())
		return
	}
	if len(n.pairs) == 0 {
		p.badf(n, hint, "is empty")
	}
	for _, pr := range n.pairs {
		if err := CheckContainerName(pr.name.text); err != nil {
			f := err.(*fault)
			p.fail(pr.name, n.key, faultf(f.hint, "%s: %s", n.key, f.message))
			continue
		}
		app := newContainer(pr.name.text, p.o.Defaults)
		c := &containerDraft{draft: draft{app: &app, env: map[string]string{}}, at: pr.value, name: pr.name, after: map[string]*node{}}
		c.own = c
		d.files = append(d.files, c)
		if pr.value.shape != mapping {
			p.badf(pr.value, "write its keys, as in {image: nginx}", "wants a map, not %s", pr.value.kind())
			continue
		}
		for _, key := range pr.value.pairs {
			if unitOnly(key.name.text) {
				p.fail(key.name, join(pr.value.key, key.name.text), faultf("write it at the top", "%s: belongs to the unit, not to one container", key.name.text))
				continue
			}
			containerTable.one(p, pr.value, key, &c.draft)
		}
	}
}

// unitOnly tells whether a key that works is one of the unit as a whole.
func unitOnly(name string) bool {
	is := func(f field[draft]) bool { return f.Name == name }
	return slices.ContainsFunc(unitFields, is) && !slices.ContainsFunc(containerOwn.fields, is)
}

// CheckContainerName tells what is wrong with a container's name. It has no dot: INSTANCE-ID.NAME
// is its id, NAME.log its log file.
func CheckContainerName(name string) error {
	if err := CheckName(name); err != nil || strings.Contains(name, ".") {
		return faultf("it begins with a-z or 0-9 and goes on with letters, digits, _ and -", "%q is not a container's name", name)
	}
	return nil
}

func (p *reader) setEssential(n *node, d *draft) {
	if value, ok := p.boolean(n); ok {
		d.own.essential, d.own.value = n, value
	}
}

// setAfter reads depends_on of a container.
func (p *reader) setAfter(n *node, d *draft) {
	add := func(at *node, dep ContainerDependency) {
		if d.own.after[dep.Container] != nil {
			p.fail(at, n.key, faultf("", "%s: %s is given twice", n.key, dep.Container))
			return
		}
		d.own.after[dep.Container] = at
		d.app.DependsOn = append(d.app.DependsOn, dep)
	}
	switch n.shape {
	case list:
		for _, item := range n.items {
			if name, ok := p.word(item); ok {
				add(item, ContainerDependency{Container: name, Condition: Started})
			}
		}
	case mapping:
		for _, pr := range n.pairs {
			dep := ContainerDependency{Container: pr.name.text, Condition: Started}
			if pr.value.shape != null {
				containerDependencyTable.fill(p, pr.value, &dep)
			}
			add(pr.name, dep)
		}
	default:
		p.badf(n, "", "wants a list or a map, not %s", n.kind())
	}
	slices.SortFunc(d.app.DependsOn, func(a, b ContainerDependency) int { return strings.Compare(a.Container, b.Container) })
}

// containers checks what concerns several containers, and makes them the unit's.
func (p *reader) containers(root *node, d *draft) {
	for _, pr := range root.pairs {
		if slices.ContainsFunc(containerFields, func(f field[draft]) bool { return f.Name == pr.name.text && !f.Later }) {
			p.fail(pr.name, pr.name.text, faultf("write it under containers: {NAME: ...}", "%s: belongs to one container, and there is containers", pr.name.text))
		}
	}
	d.unit.Containers = nil
	for _, c := range d.files {
		if c.image == nil && c.at.get("image") == nil && c.at.shape == mapping {
			p.fail(c.name, join(c.at.key, "image"), faultf("", "%s: is missing", join(c.at.key, "image")))
		}
		p.environment(&c.draft)
		d.unit.Containers = append(d.unit.Containers, *c.app)
	}
	slices.SortFunc(d.unit.Containers, func(a, b Container) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range d.files {
		p.openings(c.at, &d.unit, d.unit.Container(c.app.Name))
	}
	p.order(d)
	p.essentials(d)
}

// order checks depends_on of the containers.
func (p *reader) order(d *draft) {
	uses := map[string][]string{}
	for _, c := range d.unit.Containers {
		for _, dep := range c.DependsOn {
			uses[c.Name] = append(uses[c.Name], dep.Container)
		}
	}
	for _, c := range d.files {
		for _, dep := range c.app.DependsOn {
			at, known := c.after[dep.Container], make([]string, 0, len(d.files))
			for _, o := range d.files {
				known = append(known, o.app.Name)
			}
			switch way := wayBack(uses, c.app.Name, []string{c.app.Name, dep.Container}); {
			case !slices.Contains(known, dep.Container):
				p.fail(at, c.at.key, faultf(didYouMean(dep.Container, known), "%s.depends_on: there is no container %s", c.at.key, dep.Container))
			case dep.Container == c.app.Name:
				p.fail(at, c.at.key, faultf("", "%s.depends_on: %s depends on itself", c.at.key, c.app.Name))
			case way != nil:
				p.fail(at, c.at.key, faultf("", "%s.depends_on: it goes in a circle: %s", c.at.key, strings.Join(way, " -> ")))
			}
		}
	}
}

// wayBack finds a way on from the last of way to the container it began with.
func wayBack(uses map[string][]string, to string, way []string) []string {
	last := way[len(way)-1]
	if last == to {
		return way
	}
	if slices.Contains(way[:len(way)-1], last) {
		return nil // a circle, but of others
	}
	for _, next := range uses[last] {
		if found := wayBack(uses, to, append(slices.Clip(way), next)); found != nil {
			return found
		}
	}
	return nil
}

// essentials decides which containers are essential. One that another waits for to
// complete is there to end, so it is none.
func (p *reader) essentials(d *draft) {
	some := false
	for _, c := range d.files {
		app, awaited := d.unit.Container(c.app.Name), d.unit.Awaited(c.app.Name)
		app.Essential = !awaited
		if c.essential != nil {
			app.Essential = c.value
		}
		if app.Essential && awaited {
			p.badf(c.essential, "leave it out", "another container waits for %s to complete, so that its end cannot be the run's", app.Name)
		}
		some = some || app.Essential
	}
	if !some && len(d.files) > 0 && len(d.files) == len(d.several.pairs) {
		p.badf(d.several, "leave essential out for one of them", "none of the containers is essential, so that the run would never end")
	}
	if len(d.unit.Containers) == 1 {
		d.unit.Containers[0].Essential = false // it says something of several only
	}
}
