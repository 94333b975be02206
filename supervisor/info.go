package supervisor

import (
	"net/netip"
	"os"
	"slices"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/internal/room"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// Info describes the daemon.
func (s *Supervisor) Info() api.Info {
	o := s.opts.Load()
	i := api.Info{Version: o.Version, Pid: os.Getpid(), StartedAt: s.startedAt, Root: s.paths.root, RunDir: s.paths.runDir,
		Cgroup: o.CgroupParent, Bridge: o.Bridge, Warnings: slices.Concat(s.snap.Load().warnings, s.notices.list())}
	if o.Subnet.IsValid() {
		i.Subnet = o.Subnet.String()
	}
	if mode, err := cgroup.Detect(); err == nil {
		i.CgroupMode = map[cgroup.Mode]string{cgroup.Unified: "unified", cgroup.Legacy: "legacy"}[mode]
	}
	for what, err := range map[string]error{"events": s.events.Err(), "state": s.store.Err()} {
		if err != nil {
			i.Warnings = append(i.Warnings, what+" not written: "+err.Error())
		}
	}
	i.Warnings = append(i.Warnings, room.Warnings(s.paths.root, s.paths.runDir)...)
	select {
	case <-s.ready:
		i.Warnings = append(i.Warnings, s.keeperAway()...)
		i.KeeperPid = s.rt.KeeperPid()
		// A network chooses its subnet when the first run is attached.
		if n, ok := s.net.(interface{ Subnet() netip.Prefix }); ok && n.Subnet().IsValid() {
			i.Subnet = n.Subnet().String()
		}
	default:
	}
	i.ShutdownBudget, i.LastEvent = unit.Duration(s.shutdownBudget()), s.events.Last()
	s.storeInfo(&i)
	return i
}

// storeInfo adds what concerns the images.
func (s *Supervisor) storeInfo(i *api.Info) {
	i.LastGC = s.lastGC.Load()
	if d, err := s.img.Disk(); err == nil {
		s.pressure.mu.Lock()
		text := s.pressure.text
		s.pressure.mu.Unlock()
		i.Disk = &api.Disk{Path: d.Path, Total: d.Total, Free: d.Free, Reserve: d.Reserve, Used: d.Used,
			Inodes: d.Inodes, InodesFree: d.InodesFree, Pressure: text}
	}
	if s.disk == nil {
		return
	}
	for _, l := range s.disk.RateLimits() {
		i.Registries = append(i.Registries, api.RateLimit(l))
	}
}
