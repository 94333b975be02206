package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Freeze stops every process of the group until Thaw, also those that come to
// it. It returns once all stand still; if they do not before ctx ends, none is
// stopped.
func (g Group) Freeze(ctx context.Context) error {
	h, err := g.host("freeze")
	if err != nil {
		return err
	}
	return g.wrap("freeze", h.freezeAll(ctx, g.Path))
}

// Thaw lets a frozen group go on. One that is not frozen stays as it is.
func (g Group) Thaw() error {
	h, err := g.host("thaw")
	if err != nil {
		return err
	}
	h.thaw(g.Path)
	frozen, err := h.frozen(g.Path)
	if err == nil && frozen {
		err = errors.New("it stays frozen, as a group above it is")
	}
	return g.wrap("thaw", err)
}

// Frozen tells whether somebody has frozen the group.
func (g Group) Frozen() (bool, error) {
	h, err := g.host("look up")
	if err != nil {
		return false, err
	}
	frozen, err := h.frozen(g.Path)
	return frozen, g.wrap("look up", err)
}

func (h *host) freezeAll(ctx context.Context, group string) error {
	file, value := h.file("freezer", group, "freezer.state"), "FROZEN"
	if h.mode == Unified {
		file, value = h.file("", group, "cgroup.freeze"), "1"
	}
	if file == "" {
		return fmt.Errorf("the %s controller %q is not available to us", h.mode, "freezer")
	}
	for pause := (backoff{}); ; {
		// v1 must be asked again and again: a process that forks meanwhile keeps it FREEZING.
		if err := writeFile(file, value); err != nil {
			return err
		}
		if done, err := h.settled(group); err != nil || done {
			return err
		}
		if err := pause.wait(ctx); err != nil {
			h.thaw(group)
			return fmt.Errorf("some process does not stand still: %w", err)
		}
	}
}

// settled tells whether all processes stand still.
func (h *host) settled(group string) (bool, error) {
	if h.mode == Unified {
		n, err := readKey(filepath.Join(h.unified, group, "cgroup.events"), "frozen")
		return n == 1, err
	}
	b, err := os.ReadFile(h.file("freezer", group, "freezer.state"))
	return strings.TrimSpace(string(b)) == "FROZEN", err
}

// frozen tells whether it was asked for. A v1 group that is FREEZING is.
func (h *host) frozen(group string) (bool, error) {
	file, running := h.file("freezer", group, "freezer.state"), "THAWED"
	if h.mode == Unified {
		file, running = h.file("", group, "cgroup.freeze"), "0"
	}
	if file == "" {
		return false, nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && strings.TrimSpace(string(b)) != running, err
}
