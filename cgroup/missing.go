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
)

// missing is a controller that a limit needs and that is not there.
type missing struct {
	need
	mode   Mode
	remedy string
}

func (m *missing) Error() string {
	text := fmt.Sprintf("%s: the %s controller %q is not available to us", m.name, m.mode, m.controller)
	if m.remedy != "" {
		text += ": " + m.remedy
	}
	return text
}

// remedy adds to an error about a controller why it is missing in parent, and what helps.
func (h *host) remedy(err error, parent string) error {
	var m *missing
	if !errors.As(err, &m) {
		return err
	}
	cmdline, _ := os.ReadFile("/proc/cmdline")
	m.remedy = h.whyMissing(m.controller, parent, string(cmdline))
	return m
}

func (h *host) whyMissing(controller, parent, cmdline string) string {
	if arg := disabledBy(cmdline, controller); arg != "" {
		return fmt.Sprintf("the kernel was booted with %s: boot it without", arg)
	}
	if h.mode == Legacy {
		return "it is not mounted below /sys/fs/cgroup, or the kernel is built without it"
	}
	if have, err := readWords(filepath.Join(h.unified, "cgroup.controllers")); err == nil && !slices.Contains(have, controller) {
		return "the kernel is built without it, or it is in use as one of cgroup v1"
	}
	at, handed := h.lastWith(controller, parent)
	if at == "/" && handed == "" {
		return ""
	}
	unit := path.Base(handed)
	if strings.HasSuffix(unit, ".service") || strings.HasSuffix(unit, ".scope") || strings.HasSuffix(unit, ".slice") {
		return fmt.Sprintf("the host has it, but group %s does not get it: set Delegate=yes, or Delegate= with it in the list, for %s", handed, unit)
	}
	return fmt.Sprintf("the host has it, but group %s does not get it: it must stand in %s",
		handed, filepath.Join(h.unified, at, "cgroup.subtree_control"))
}

// lastWith is the last group on the way to parent that has the controller, and the next one, which has not.
func (h *host) lastWith(controller, parent string) (at, next string) {
	list := append(ancestors(parent), parent)
	for i := 1; i < len(list); i++ {
		have, err := readWords(filepath.Join(h.unified, list[i], "cgroup.controllers"))
		if err == nil && !slices.Contains(have, controller) {
			return list[i-1], list[i]
		}
	}
	return "/", ""
}

// disabledBy is the parameter that keeps the kernel from having a controller;
// empty if there is none.
func disabledBy(cmdline, controller string) string {
	for _, arg := range strings.Fields(cmdline) {
		list, ok := strings.CutPrefix(arg, "cgroup_disable=")
		if ok && slices.Contains(strings.Split(list, ","), controller) {
			return arg
		}
	}
	return ""
}

// sizeText is an amount of bytes for people, in the words of unit files.
func sizeText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		switch {
		case n != 0 && n%u.size == 0:
			return strconv.FormatInt(n/u.size, 10) + u.name
		case n >= u.size:
			return strconv.FormatFloat(float64(n)/float64(u.size), 'f', 1, 64) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
