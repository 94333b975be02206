package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Parent is the group that all groups of ours stand below.
type Parent struct {
	// Path of the group, "/wherry".
	Path string

	// Delegated is the highest group that is ours to configure: the unit's
	// group under systemd with Delegate=yes. If empty it is the nearest one that
	// systemd has marked so, and Path itself if there is none. Path is it or
	// stands below it. Prepare writes nothing above it; Require does where
	// nobody has delegated anything.
	Delegated string

	// Subgroup, if set, is where processes that stand in Delegated itself are
	// moved to: a v2 group with processes of its own cannot share out
	// controllers. systemd 254 and newer does it with DelegateSubgroup=. In a
	// group that nobody has delegated they are not ours to move.
	Subgroup string

	// Scopes says that systemd makes groups for us below it, with the controllers
	// that it knows of: for Check.
	Scopes bool
}

// systemdControllers are what systemd hands out to scopes that are delegated; the limits
// of other controllers cannot be had in one.
var systemdControllers = []string{"cpu", "cpuset", "io", "memory", "pids"}

// ErrOccupied says that a group which must hand controllers down holds
// processes itself.
var ErrOccupied = errors.New("it holds processes itself, which the kernel forbids where controllers are shared out")

// wantedControllers are enabled for our groups where the host has them.
var wantedControllers = []string{"memory", "cpu", "pids", "cpuset", "io", "hugetlb"}

// Prepare makes the parent and, on v2, enables the controllers for the groups
// below it. It may be repeated at any time. A controller that the host or the
// delegation lacks is no error here: [Limits.Check] names it when it is needed.
func (p Parent) Prepare() error {
	g := Group{Path: p.Path}
	h, err := g.host("prepare")
	if err != nil {
		return err
	}
	if p.Delegated == "" {
		if p.Delegated = h.delegation(p.Path); p.Delegated == "" {
			p.Delegated, p.Subgroup = p.Path, "" // nobody's leave to move anything
		}
	}
	if p.Path != p.Delegated && !strings.HasPrefix(p.Path, p.Delegated+"/") {
		return g.wrap("prepare", fmt.Errorf("not below %s, which is delegated", p.Delegated))
	}
	if err := (Group{Path: p.Delegated}).check(); err != nil {
		return g.wrap("prepare", fmt.Errorf("delegated group %q: %w", p.Delegated, err))
	}
	return g.wrap("prepare", h.prepare(p))
}

func (h *host) prepare(p Parent) error {
	if h.mode == Legacy {
		return h.prepareLegacy(p.Path)
	}
	if err := os.MkdirAll(filepath.Join(h.unified, p.Path), 0o755); err != nil {
		return err
	}
	if p.Subgroup != "" {
		if err := h.vacate(p.Delegated, p.Subgroup); err != nil {
			return err
		}
	}
	for group := p.Delegated; ; {
		if err := h.shareOut(group); err != nil {
			return err
		}
		if group == p.Path {
			return nil
		}
		next, _, _ := strings.Cut(strings.TrimPrefix(p.Path, group+"/"), "/")
		group = path.Join(group, next)
	}
}

// delegation is the nearest group, from group upwards, that systemd has
// delegated; empty if there is none.
func (h *host) delegation(group string) string {
	for g := group; h.mode == Unified && g != "/"; g = path.Dir(g) {
		if h.delegated(g) {
			return g
		}
	}
	return ""
}

// delegated reads systemd's mark, which is for whoever manages groups below.
func (h *host) delegated(group string) bool {
	dir := filepath.Join(h.unified, group)
	for _, mark := range []string{"trusted.delegate", "user.delegate"} { // the second one since systemd 251
		b := make([]byte, 8)
		if n, err := unix.Lgetxattr(dir, mark, b); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	return false
}

// Require makes sure that groups below the parent can have the limits, or names
// the controller that is missing. Where nothing was delegated, the parent being
// a group of our own right below the host's, a controller that a limit needs is enabled on
// the way there, and only such a one.
func (p Parent) Require(l Limits) error {
	g := Group{Path: p.Path}
	err := l.Check(g)
	if err == nil || l.Validate() != nil {
		return err
	}
	h, herr := theHost()
	if herr != nil || h.mode == Legacy || p.Delegated != "" || h.delegation(p.Path) != "" {
		return err
	}
	for _, above := range ancestors(p.Path) {
		dir := filepath.Join(h.unified, above)
		if above != "/" && h.holdsProcesses(dir) {
			return err
		}
		for _, c := range l.controllers() {
			writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+c) // whether it helped is looked at below
		}
	}
	if l.Check(g) != nil {
		return err
	}
	return p.Prepare()
}

// Check tells whether Require could make sure of the limits, and changes nothing.
func (p Parent) Check(l Limits) error {
	if p.Scopes {
		return p.checkScopes(l)
	}
	err := l.Check(Group{Path: p.Path})
	if err == nil || l.Validate() != nil {
		return err
	}
	h, herr := theHost()
	if herr != nil || h.mode == Legacy || p.Delegated != "" || h.delegation(p.Path) != "" {
		return err
	}
	if have, rerr := h.controllers("/"); rerr == nil && l.checkAgainst(have, h.mode) == nil && !errors.Is(err, ErrBeyondHost) {
		return nil
	}
	return err
}

func (p Parent) checkScopes(l Limits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	h, err := theHost()
	if err != nil {
		return err
	}
	have, err := h.controllers("/")
	if err != nil {
		return err
	}
	if err := l.checkAgainst(have, h.mode); err != nil {
		return h.remedy(err, "/")
	}
	var m *missing
	if err := l.checkAgainst(systemdControllers, h.mode); errors.As(err, &m) {
		m.remedy = "systemd does not hand it out to scopes: use cgroup_driver: cgroupfs"
		return m
	}
	if err := l.checkFiles(h, p.Path); err != nil {
		return err
	}
	return l.checkSets(h, p.Path)
}

// ancestors of a group, the root first.
func ancestors(group string) []string {
	var list []string
	for g := group; g != "/"; {
		g = path.Dir(g)
		list = append(list, g)
	}
	slices.Reverse(list)
	return list
}

// prepareLegacy makes the group in each hierarchy. Not in cpuset: a group there
// must first be given processors and memory nodes, which libcontainer does.
func (h *host) prepareLegacy(group string) error {
	for _, root := range h.roots() {
		if root == h.v1["cpuset"] {
			continue
		}
		if err := os.MkdirAll(filepath.Join(root, group), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// shareOut enables the wanted controllers for the children of a group.
func (h *host) shareOut(group string) error {
	dir := filepath.Join(h.unified, group)
	have, err := readWords(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	on, err := readWords(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	for _, c := range wantedControllers {
		if !slices.Contains(have, c) || slices.Contains(on, c) {
			continue
		}
		if h.holdsProcesses(dir) {
			return occupied(group, dir)
		}
		switch err := writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+c); {
		case err == nil:
		case errors.Is(err, unix.EBUSY):
			return occupied(group, dir)
		case c == "cpuset" || c == "io" || c == "hugetlb": // welcome, not needed
		default:
			return fmt.Errorf("enable controller %s in %s: %w", c, group, err)
		}
	}
	return nil
}

// holdsProcesses tells whether a group has processes of its own. To share out memory there
// is an error, but cpu and pids would silently turn it into one of threads,
// below which no other group works.
func (h *host) holdsProcesses(dir string) bool {
	pids, err := readWords(filepath.Join(dir, "cgroup.procs"))
	return err == nil && len(pids) > 0
}

func occupied(group, dir string) error {
	pids, _ := readWords(filepath.Join(dir, "cgroup.procs"))
	return fmt.Errorf("share out controllers of %s: %w (pid %s): move them to a group below it, or set DelegateSubgroup= in the systemd unit",
		group, ErrOccupied, strings.Join(pids, ", "))
}

// vacate moves a group's own processes into a child. A process that forks
// meanwhile leaves a child behind, so it looks until the group is empty.
func (h *host) vacate(group, child string) error {
	if child != path.Base(child) || child == "." || child == ".." {
		return fmt.Errorf("subgroup %q: not the name of a group", child)
	}
	dir := filepath.Join(h.unified, group)
	leaf := filepath.Join(dir, child)
	for range 100 {
		pids, err := readWords(filepath.Join(dir, "cgroup.procs"))
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := os.MkdirAll(leaf, 0o755); err != nil {
			return err
		}
		for _, pid := range pids {
			err := writeFile(filepath.Join(leaf, "cgroup.procs"), pid)
			if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return fmt.Errorf("move process %s to %s: %w", pid, path.Join(group, child), err)
			}
		}
	}
	return occupied(group, dir)
}

// Join moves a process into the group, which is made if it is not there. On
// v1 it joins the group of every hierarchy but cpuset.
func (g Group) Join(pid int) error {
	h, err := g.host("join")
	if err != nil {
		return err
	}
	return g.wrap("join", h.join(g.Path, pid))
}

func (h *host) join(group string, pid int) error {
	roots := h.roots()
	if h.mode == Unified {
		roots = []string{h.unified}
	}
	for _, root := range roots {
		if h.mode == Legacy && root == h.v1["cpuset"] {
			continue
		}
		dir := filepath.Join(root, group)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

func readWords(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	return strings.Fields(string(b)), err
}
