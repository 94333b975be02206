package unit

import "slices"

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
