package ctl

import (
	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// runFlags are the flags of `run`, as hands know them from Docker.
type runFlags struct {
	detach, remove, quiet bool
	interactive           interactiveFlags

	name, restart, network  string
	volumes, env, ports     []string
	user, workdir           string
	memory, cpus, pids      string
	entrypoint              string
	readOnly                bool
	capAdd, capDrop, labels []string
	stopSignal, pull        string
	stopTimeout             durationFlag
}

func (f *runFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.BoolVarP(&f.detach, "detach", "d", false, "leave it running and print its name")
	fl.BoolVar(&f.remove, "rm", false, "remove the unit at its end")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no pull progress")
	f.interactive.add(c)
	fl.StringVar(&f.name, "name", "", "the unit's name; one is made up")
	fl.StringVar(&f.restart, "restart", "no", "no, on-failure[:n], always or unless-stopped")
	fl.StringVar(&f.network, "network", "bridge", "bridge, host or none")
	fl.StringVar(&f.network, "net", "bridge", "the same as --network")
	_ = fl.MarkHidden("net")
	fl.StringArrayVarP(&f.volumes, "volume", "v", nil, "SOURCE:TARGET[:ro], a host path or a volume's name")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE, or NAME for its value here")
	fl.StringArrayVarP(&f.ports, "publish", "p", nil, "[[IP:]HOSTPORT:]PORT[/udp]")
	fl.StringVarP(&f.user, "user", "u", "", "user or uid, with :group if wanted")
	fl.StringVarP(&f.workdir, "workdir", "w", "", "folder to run in")
	fl.StringVarP(&f.memory, "memory", "m", "", "memory limit, such as 512m")
	fl.StringVar(&f.cpus, "cpus", "", "CPU limit, such as 1.5")
	fl.StringVar(&f.pids, "pids-limit", "", "limit of processes")
	fl.StringVar(&f.entrypoint, "entrypoint", "", "instead of the image's")
	fl.BoolVar(&f.readOnly, "read-only", false, "the root file system cannot be written")
	fl.StringArrayVar(&f.capAdd, "cap-add", nil, "capability to add")
	fl.StringArrayVar(&f.capDrop, "cap-drop", nil, "capability to drop, or ALL")
	fl.StringArrayVarP(&f.labels, "label", "l", nil, "NAME=VALUE")
	fl.StringVar(&f.stopSignal, "stop-signal", "", "instead of the image's")
	fl.Var(&f.stopTimeout, "stop-timeout", "kill so long after the stop signal")
	fl.StringVar(&f.pull, "pull", "missing", "missing, always or never")
}

// unit is the unit that the flags make.
func (f *runFlags) unit(image string, command []string) (unit.Unit, error) {
	return unit.Unit{}, nil
}
