package apitest

import (
	"context"
	"fmt"
	"strings"

	"github.com/wherry-run/wherry/supervisor/api"
)

// KeepExit adds to what is known of ends, the newest last.
func (d *Daemon) KeepExit(r api.ExitRecord) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends = append([]api.ExitRecord{r}, d.ends...)
}

// Exits are those of a unit, or of an instance.
func (d *Daemon) Exits(_ context.Context, name string) ([]api.ExitRecord, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	unit := name
	if dot := strings.LastIndexByte(name, '.'); dot > 0 && d.units[name] == nil {
		unit = name[:dot]
	}
	if d.units[unit] == nil {
		return nil, fmt.Errorf("%w: %s", api.ErrNoSuchUnit, name)
	}
	list := []api.ExitRecord{}
	for _, r := range d.ends {
		if r.Unit == unit && (unit == name || r.Instance == name) {
			list = append(list, r)
		}
	}
	return list, nil
}
