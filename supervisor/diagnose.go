package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/doctor"
)

// Doctor looks at the host as this daemon sees it. Who asks while a look is under
// way gets its answer: many who ask cost no more than one.
func (s *Supervisor) Doctor(ctx context.Context, r api.DoctorRequest) (api.Diagnosis, error) {
	key := fmt.Sprint(r)
	answer := s.looks.DoChan(key, func() (any, error) {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		return s.doctor.Run(limited, s.doctorOptions(limited, r)), nil
	})
	select {
	case a := <-answer:
		return a.Val.(api.Diagnosis), nil
	case <-ctx.Done():
		return api.Diagnosis{}, ctx.Err()
	}
}

func (s *Supervisor) doctorOptions(ctx context.Context, r api.DoctorRequest) doctor.Options {
	o := s.opts.Load()
	d := o.DoctorOptions()
	d.Root, d.RunDir = s.paths.root, s.paths.runDir
	d.AskRegistries, d.Limit = r.Registries, r.Limit
	if o.Reload != nil {
		_, d.ConfigErr = o.Reload()
	}
	for _, u := range s.Units() {
		detail, err := s.Unit(ctx, u.Name)
		if err != nil {
			continue // it has just gone
		}
		for _, c := range detail.Definition.Containers {
			if host := image.HostOf(c.Image); host != "" {
				d.Hosts = append(d.Hosts, host)
			}
		}
	}
	d.Daemon = func(context.Context) (api.Info, error) { return s.Info(), nil }
	return d
}

// DoctorOptions are what a doctor has to know of a daemon with these options,
// whether one runs or not.
func (o Options) DoctorOptions() doctor.Options {
	images := imageOptions(o, paths{root: o.Root, runDir: o.RunDir})
	images.Holds = nil
	return doctor.Options{
		Root: o.Root, RunDir: o.RunDir, Units: o.Units, Config: o.Config, Keeper: o.Keeper, KeeperManaged: o.KeeperManaged,
		CgroupParent: o.CgroupParent, CgroupDriver: o.CgroupDriver, Bridge: o.Bridge, Subnet: o.Subnet,
		UserNS: o.Defaults.UserNS, High: o.GC.High, Images: images,
	}
}
