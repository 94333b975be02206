package daemon

import (
	"context"
	"os"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/doctor"
)

// Look is what `wherry ctl doctor` does where no daemon answers: it looks at the host as
// a daemon with the configuration would, without one.
func Look(version string) func(ctx context.Context, config, socket string, r api.DoctorRequest) api.Diagnosis {
	return func(ctx context.Context, config, socket string, r api.DoctorRequest) api.Diagnosis {
		o, warnings, err := load(flags{config: config}, version)
		connect(&o)
		serviced(&o.CgroupParent, &o.KeeperManaged)
		client := api.Dial(socket)
		defer client.Close()
		if i, err := client.Info(ctx); err == nil { // its flags may say otherwise
			o.Root, o.RunDir, o.CgroupParent, o.Bridge = i.Root, i.RunDir, i.Cgroup, i.Bridge
		}
		d := o.DoctorOptions()
		d.ConfigErr, d.AskRegistries, d.Limit, d.Daemon = err, r.Registries, r.Limit, client.Info
		if err == nil && len(warnings) > 0 {
			d.ConfigErr = warnings
		}
		return doctor.Run(ctx, d)
	}
}

// serviced is what the services say by environment, which this process does not have.
func serviced(parent *string, managed *bool) {
	if os.Getenv(envCgroupParent) != "" {
		return
	}
	for _, p := range []string{"/run/systemd/system", "/usr/lib/systemd/system/wherry-cargo.service"} {
		if _, err := os.Stat(p); err != nil {
			return
		}
	}
	if *parent == "wherry" {
		*parent = "wherry.slice/wherry-cargo.service"
	}
	*managed = true
}
