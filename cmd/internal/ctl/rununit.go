package ctl

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// runFlags are the flags of `run`, as hands know them from Docker.
type runFlags struct {
	unit.RunFlags
	detach, remove, quiet, noInit bool
	interactive                   interactiveFlags
}

func (f *runFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.BoolVarP(&f.detach, "detach", "d", false, "leave it running and print its name")
	fl.BoolVar(&f.remove, "rm", false, "remove the unit at its end")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no pull progress")
	f.interactive.add(c)
	fl.StringVar(&f.Name, "name", "", "the unit's name; one is made up")
	fl.StringVar(&f.Restart, "restart", "", "no (the default), on-failure[:n], always or unless-stopped")
	fl.StringVar(&f.Network, "network", "", "bridge (the default), host or none")
	fl.StringVar(&f.Network, "net", "", "the same as --network")
	_ = fl.MarkHidden("net")
	fl.StringArrayVarP(&f.Volumes, "volume", "v", nil, "`MOUNT`: SOURCE:TARGET[:ro], from a host path or a volume's name")
	fl.StringArrayVar(&f.Tmpfs, "tmpfs", nil, "`MOUNT`: TARGET[:size=64m,mode=1777]")
	fl.StringArrayVarP(&f.Env, "env", "e", nil, "`NAME=VALUE`, or NAME for its value here")
	fl.StringArrayVar(&f.EnvFiles, "env-file", nil, "`FILE` of NAME=VALUE lines")
	fl.StringArrayVarP(&f.Ports, "publish", "p", nil, "`PORTS`: [[IP:]HOSTPORT:]PORT[/udp]")
	fl.StringVarP(&f.User, "user", "u", "", "user or uid, with :group if wanted")
	fl.StringVarP(&f.WorkingDir, "workdir", "w", "", "folder to run in")
	fl.StringVarP(&f.Memory, "memory", "m", "", "memory limit, such as 512m")
	fl.StringVar(&f.CPUs, "cpus", "", "CPU limit, such as 1.5")
	fl.StringVar(&f.PidsLimit, "pids-limit", "", "limit of processes")
	addLimitFlags(fl, &f.Limits)
	fl.StringVar(&f.OOM, "oom", "", "group (the default): lack of memory ends all of it; process: one process")
	fl.StringVar(&f.Entrypoint, "entrypoint", "", "instead of the image's")
	fl.BoolVar(&f.ReadOnly, "read-only", false, "the root file system cannot be written")
	fl.StringArrayVar(&f.CapAdd, "cap-add", nil, "`CAPABILITY` to add")
	fl.StringArrayVar(&f.CapDrop, "cap-drop", nil, "`CAPABILITY` to drop, or ALL")
	fl.StringArrayVar(&f.Devices, "device", nil, "`DEVICE`: /dev/x[:/dev/y[:rwm]], or vendor.com/class=name")
	fl.BoolVar(&f.Privileged, "privileged", false, "no isolation from the host's devices and kernel")
	fl.StringArrayVar(&f.SecurityOpt, "security-opt", nil, "`OPTION`: no-new-privileges[:false], seccomp=FILE|unconfined, apparmor=NAME, label=disable")
	fl.StringArrayVar(&f.Sysctls, "sysctl", nil, "`NAME=VALUE` of a kernel parameter of its own")
	fl.StringArrayVar(&f.Ulimits, "ulimit", nil, "`NAME=SOFT[:HARD]`")
	fl.StringArrayVar(&f.GroupAdd, "group-add", nil, "further `GROUP` of its user")
	fl.StringVar(&f.ShmSize, "shm-size", "", "size of /dev/shm, 64m if not given")
	fl.StringVar(&f.OOMScoreAdj, "oom-score-adj", "", "-1000 to 1000: how readily the kernel kills it")
	fl.Bool("help", false, "help for run") // without -h, which is Docker's for:
	fl.StringVarP(&f.Hostname, "hostname", "h", "", "instead of the instance's name")
	fl.StringVar(&f.PID, "pid", "", "host: it sees the host's processes")
	fl.StringVar(&f.IPC, "ipc", "", "host: it uses the host's IPC")
	fl.StringVar(&f.UserNS, "userns", "", "auto (the default), required or host")
	fl.StringArrayVarP(&f.Labels, "label", "l", nil, "`NAME=VALUE`")
	fl.StringVar(&f.StopSignal, "stop-signal", "", "instead of the image's")
	fl.StringVar(&f.StopTimeout, "stop-timeout", "", "kill so long after the stop signal")
	fl.StringArrayVar(&f.LogOpts, "log-opt", nil, "`OPTION`: max-size=10m or max-file=3")
	fl.StringVar(&f.Pull, "pull", "", "missing (the default), always, never or newer")
	fl.StringArrayVar(&f.StorageOpts, "storage-opt", nil, "`OPTION`: size=10g bounds what it writes to its root")
	fl.Bool("init", true, "has no effect: there is one unless --no-init is given")
	_ = fl.MarkHidden("init")
	fl.BoolVar(&f.noInit, "no-init", false, "the command is the container's first process")
}

// unit is the unit that the flags make.
func (f *runFlags) unit(image string, command []string) (unit.Unit, error) {
	if f.remove && f.Restart != "" && f.Restart != "no" {
		return unit.Unit{}, errors.New("--rm and --restart exclude each other")
	}
	dir, err := os.Getwd()
	if err != nil {
		return unit.Unit{}, err
	}
	r := f.RunFlags
	r.Image, r.Command, r.Dir, r.NoInit = image, command, dir, f.noInit
	r.TTY, r.Stdin = f.interactive.tty, f.interactive.stdin
	r.Env = withTerm(r.Env, r.TTY)
	r.Getenv, r.ReadFile = os.LookupEnv, os.ReadFile
	return unit.FromRun(r)
}
