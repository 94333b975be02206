package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse says that a group uses more than a limit would allow, and the kernel
// cannot take it back.
var ErrInUse = errors.New("more is in use")

// SetLimits gives the group these limits, and no others: what is not in l is
// lifted. If one of them cannot be set the former ones are back in place.
// Devices must be resolved.
func (g Group) SetLimits(l Limits) error {
	h, err := g.host("set limits")
	if err != nil {
		return err
	}
	if err := l.Validate(); err != nil {
		return g.wrap("set limits", err)
	}
	if len(h.dirs(g.Path)) == 0 {
		return g.wrap("set limits", fs.ErrNotExist)
	}
	return g.wrap("set limits", h.setLimits(g.Path, l))
}

func (h *host) setLimits(group string, l Limits) error {
	if l.MemoryHigh > 0 && h.mode == Legacy {
		return l.checkAgainst(v1Controllers, h.mode)
	}
	if err := h.makeRoom(group, l.Memory); err != nil {
		return err
	}
	var undo []setting
	for _, s := range h.settings(l, group) {
		former, err := h.current(group, s)
		if err == nil && former.value == s.value {
			continue
		}
		if err == nil {
			err = writeSetting(h.file(s.controller, group, s.file), s.value)
		}
		if s.lifted && (gone(err) || errors.Is(err, errNoController)) {
			continue
		}
		if err != nil {
			return errors.Join(h.explain(group, s, err), h.putBack(group, undo))
		}
		undo = append(undo, former)
	}
	return nil
}

// errNoController is what a setting on a host without its controller ends with.
var errNoController = errors.New("controller is not available")

// current is what a setting replaces.
func (h *host) current(group string, s setting) (setting, error) {
	file := h.file(s.controller, group, s.file)
	if file == "" {
		return s, fmt.Errorf("%s %w", s.controller, errNoController)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	former := s
	former.value = strings.TrimSpace(string(b))
	if s.device == "" {
		if rest, ok := strings.CutPrefix(former.value, "default "); ok {
			former.value, _, _ = strings.Cut(rest, "\n")
		}
		return former, nil
	}
	former.value = s.device + " 0" // of v1
	if h.mode == Unified {
		former.value = s.device + " rbps=max wbps=max riops=max wiops=max"
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, s.device+" ") {
			former.value = strings.TrimSpace(line)
		}
	}
	return former, nil
}

// writeSetting writes a value. An empty one needs a line of its own: a write of
// nothing does not reach the kernel.
func writeSetting(file, value string) error {
	if value == "" {
		value = "\n"
	}
	return writeFile(file, value)
}

func (h *host) putBack(group string, undo []setting) error {
	var errs []error
	for _, s := range slices.Backward(undo) {
		if err := writeSetting(h.file(s.controller, group, s.file), s.value); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("put back %s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}

// makeRoom has the kernel take back what a lower limit of memory leaves no room
// for. v2 would kill for it (memory.max in the kernel's cgroup-v2.rst), so it is tried with
// memory.high first, which never does. v1 tries it by itself and says EBUSY.
func (h *host) makeRoom(group string, memory int64) error {
	file := h.file("memory", group, "memory.current")
	if h.mode == Legacy || memory == 0 || h.usage(file) <= memory {
		return nil
	}
	high := setting{name: "limit memory_high", controller: "memory", file: "memory.high"}
	former, err := h.current(group, high)
	if err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	if err := writeFile(h.file("memory", group, high.file), strconv.FormatInt(memory, 10)); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	used := h.usage(file)
	if err := writeFile(h.file("memory", group, high.file), former.value); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	if used > memory {
		return inUse(memory, used)
	}
	return nil
}

func (h *host) usage(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, _ := parseValue(string(b))
	return n
}

func inUse(limit, used int64) error {
	return fmt.Errorf("limit memory: %w: %s, which cannot be taken back to %s", ErrInUse, sizeText(used), sizeText(limit))
}

// explain makes an error of the kernel's say what it is about.
func (h *host) explain(group string, s setting, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY) && strings.HasPrefix(s.file, "memory."):
		limit, _ := strconv.ParseInt(s.value, 10, 64)
		return inUse(limit, h.usage(h.file("memory", group, strings.Replace(s.file, "limit", "usage", 1))))
	case errors.Is(err, errNoController) || gone(err) && s.device == "":
		return h.remedy(&missing{need: need{s.controller, s.name}, mode: h.mode}, filepath.Dir(group))
	case errors.Is(err, unix.ENODEV) && s.device != "":
		return fmt.Errorf("%s: there is no disk %s", s.name, s.device)
	}
	return fmt.Errorf("%s: %s: %w", s.name, filepath.Base(s.file), err)
}
