package apitest

import (
	"context"
	"fmt"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/security"
)

// Security assesses a unit's definition; what runs is as good as it says.
func (d *Daemon) Security(_ context.Context, name string) (api.Security, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.units[name]
	if u == nil {
		return api.Security{}, fmt.Errorf("%w: %s", api.ErrNoSuchUnit, name)
	}
	var facts []security.Fact
	for _, i := range u.Instances {
		if i.Pid > 0 {
			facts = append(facts, security.Fact{Instance: i.Name, Container: "app", Pid: i.Pid, UserNS: true, UID: 1000, Seccomp: "filter", NoNewPrivileges: true,
				Capabilities: []string{"CHOWN", "KILL"}})
		}
	}
	return security.Assess(u.Definition, facts), nil
}
