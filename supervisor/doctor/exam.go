package doctor

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/network"
	"github.com/wherry-run/wherry/supervisor/api"
)

// finding is what a check has come to.
type finding struct {
	verdict        api.Verdict
	detail, remedy string
}

func fine(detail string) finding            { return finding{api.OK, detail, ""} }
func warning(detail, remedy string) finding { return finding{api.Warn, detail, remedy} }
func failed(detail, remedy string) finding  { return finding{api.Fail, detail, remedy} }
func skip(why string) finding               { return finding{api.Skip, why, ""} }

// check is one line of the diagnosis.
type check struct {
	name  string
	look  func(context.Context, *exam) finding
	root  bool   // others see nothing of it
	stuck string // remedy if there is no answer; empty: the usual one
}

// checks in the order of the diagnosis. Those of registries follow.
var checks = []check{
	{name: "daemon", look: checkDaemon, stuck: "systemctl restart wherry.service"},
	{name: "keeper", look: checkKeeper, root: true, stuck: "systemctl restart wherry-keeper.service: containers run on"},
	{name: "systemd", look: checkSystemd, stuck: "systemctl list-jobs; journalctl -b -p err"},
	{name: "files.config", look: checkConfig},
	{name: "files.units", look: checkUnits},
	{name: "kernel.version", look: checkKernel},
	{name: "kernel.seccomp", look: checkSeccomp},
	{name: "cgroup.mode", look: checkCgroupMode},
	{name: "cgroup.delegation", look: checkDelegation},
	{name: "cgroup.controllers", look: checkControllers},
	{name: "cgroup.swap", look: checkSwap},
	{name: "cgroup.pressure", look: checkPressure},
	{name: "fs.root", look: checkRoot},
	{name: "fs.run", look: checkRunDir},
	{name: "fs.overlay", look: checkOverlay, root: true},
	{name: "fs.erofs", look: checkEROFS, root: true},
	{name: "fs.idmap", look: checkIDMap, root: true},
	{name: "fs.quota", look: checkQuota, root: true},
	{name: "userns", look: checkUserNS, root: true},
	{name: "disk.space", look: checkSpace},
	{name: "disk.inodes", look: checkInodes},
	{name: "net.kernel", look: checkNetKernel, root: true},
	{name: "net.firewall", look: checkFirewall, root: true},
	{name: "net.forwarding", look: checkForwarding},
	{name: "net.bridge", look: checkBridge, root: true},
	{name: "net.dns", look: checkDNS},
	{name: "clock.time", look: checkClock},
	{name: "clock.sync", look: checkSync},
	{name: "limits.files", look: checkFiles},
	{name: "limits.inotify", look: checkInotify},
	{name: "limits.tasks", look: checkTasks},
	{name: "limits.mounts", look: checkMounts},
	{name: "limits.conntrack", look: checkConntrack},
	{name: "limits.memory", look: checkMemory},
	{name: "lsm", look: checkLSM},
}

// exam is one look at the host. What several checks need is found out once.
type exam struct {
	o Options
	h *host
	p *probes

	info    func() (api.Info, error)
	keeper  func() (runtime.KeeperState, error)
	network func() (network.Diagnosis, error)
	bridged func() bool // the bridge is there
}

var errNoDaemon = errors.New("no daemon")

func newExam(o Options) *exam {
	e := &exam{o: o, h: o.host, p: o.probes}
	e.info = sync.OnceValues(func() (api.Info, error) {
		if o.Daemon == nil {
			return api.Info{}, errNoDaemon
		}
		ctx, cancel := context.WithTimeout(context.Background(), o.Limit)
		defer cancel()
		return o.Daemon(ctx)
	})
	e.keeper = sync.OnceValues(func() (runtime.KeeperState, error) {
		ctx, cancel := context.WithTimeout(context.Background(), o.Limit)
		defer cancel()
		return e.p.keeper(ctx)
	})
	e.network = sync.OnceValues(e.p.network)
	e.bridged = func() bool { return e.h.exists("/sys/class/net/" + o.Bridge) }
	return e
}

// dir is the folder itself or, if it is not there yet, what it would be made in.
func (e *exam) dir(path string) string {
	for !e.h.exists(path) && path != "/" && path != "." {
		path = filepath.Dir(path)
	}
	return path
}

// setting is how a remedy writes a setting of wherry.yaml.
func (e *exam) setting(line string) string { return e.o.Config + ": " + line }
