package apitest

import (
	"context"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Doctor finds a bit of everything, or nothing wrong once Heal was called.
func (d *Daemon) Doctor(_ context.Context, r api.DoctorRequest) (api.Diagnosis, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	what := ""
	if r.Registries {
		what = "registries"
	}
	if r.Limit > 0 {
		what += r.Limit.String()
	}
	if err := d.called("Doctor", what, ""); err != nil {
		return api.Diagnosis{}, err
	}
	checks := []api.Check{
		{Name: "kernel.version", Verdict: api.OK, Detail: "Linux 6.12.0"},
		{Name: "net.forwarding", Verdict: api.Fail, Detail: "net.ipv4.ip_forward is 0: containers reach nothing", Remedy: "sysctl -w net.ipv4.ip_forward=1"},
		{Name: "clock.sync", Verdict: api.Warn, Detail: "nothing keeps the clock right", Remedy: "timedatectl set-ntp true"},
		{Name: "systemd", Verdict: api.Skip, Detail: "it is not PID 1"},
	}
	if d.healthy {
		checks = checks[:1]
	}
	return api.Diagnosis{Checks: checks}, nil
}

// Heal makes the host well.
func (d *Daemon) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.healthy = true
}
