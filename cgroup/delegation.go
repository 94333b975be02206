package cgroup

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Delegation is how the parent stands with whoever else manages groups.
type Delegation struct {
	// Group is the nearest one, from the parent upwards, that systemd has
	// delegated; empty if there is none.
	Group string

	// ReadOnly: the hierarchy is mounted so that no group can be made.
	ReadOnly bool

	// Occupied are processes that stand in a group which has to share out controllers.
	Occupied []string

	// Controllers that groups below the parent could have.
	Controllers []string
}

// Delegation looks at the parent and changes nothing. On v1 only ReadOnly and
// Controllers mean something.
func (p Parent) Delegation() (Delegation, error) {
	g := Group{Path: p.Path}
	h, err := g.host("look up delegation")
	if err != nil {
		return Delegation{}, err
	}
	var d Delegation
	if d.Controllers, err = h.controllers(p.Path); err != nil {
		return d, g.wrap("look up controllers", err)
	}
	root := h.unified
	if h.mode == Legacy {
		root = h.v1["pids"]
		if root == "" {
			root = h.v1["memory"]
		}
	}
	var st unix.Statfs_t
	if root != "" {
		if err := unix.Statfs(root, &st); err != nil {
			return d, g.wrap("look up delegation", fmt.Errorf("statfs %s: %w", root, err))
		}
		d.ReadOnly = st.Flags&unix.ST_RDONLY != 0
	}
	if h.mode == Legacy {
		return d, nil
	}
	if d.Group = h.delegation(p.Path); d.Group == "" {
		return d, nil
	}
	for at := p.Path; ; at = filepath.Dir(at) {
		if pids, err := readWords(filepath.Join(h.unified, at, "cgroup.procs")); err == nil {
			d.Occupied = append(d.Occupied, pids...)
		}
		if at == d.Group || !strings.HasPrefix(at, d.Group) {
			return d, nil
		}
	}
}
