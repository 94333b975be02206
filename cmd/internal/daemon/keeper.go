package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cmd/internal/term"
)

// What the units of systemd say by environment variables, so that file and flags may
// say otherwise.
const (
	envCgroupParent  = "WHERRY_CGROUP_PARENT"
	envKeeperManaged = "WHERRY_KEEPER_MANAGED"
)

// KeeperCommand is `wherry keeper`: what wherry-keeper.service runs. It becomes
// the keeper of the daemon that has the same configuration.
func KeeperCommand() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:    "keeper",
		Short:  "Become the keeper of a daemon with the same configuration; for systemd",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE:   func(*cobra.Command, []string) error { return becomeKeeper(f) },
	}
	c.Flags().StringVar(&f.config, "config", "", "configuration; "+DefaultConfig+" if it is there")
	return c
}

func becomeKeeper(f flags) error {
	c := defaults(os.Getenv)
	file := f.config
	if file == "" {
		file = DefaultConfig
	}
	if err := readConfig(file, &c); err != nil && (f.config != "" || !errors.Is(err, fs.ErrNotExist)) {
		return startError(err)
	}
	path := c.Keeper
	if path == "" {
		path = beside("wherry-keeper")
	}
	if path == "" {
		return &term.Failure{Code: term.ExitFailed, Err: errors.New("wherry-keeper: neither beside wherry nor in /usr/lib/wherry")}
	}
	args := []string{path, "--root", c.Root, "--run-dir", c.RunDir, "--cgroup-parent", c.CgroupParent}
	return fmt.Errorf("start %s: %w", path, unix.Exec(path, args, os.Environ()))
}
