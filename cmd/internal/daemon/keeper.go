package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
		Use:     "keeper",
		Short:   "Become the keeper of a daemon with the same configuration; for systemd",
		Example: `  sudo systemctl start wherry-keeper`,
		Args:    cobra.NoArgs,
		Hidden:  true,
		RunE:    func(*cobra.Command, []string) error { return becomeKeeper(f) },
	}
	c.Flags().StringVar(&f.config, "config", "", "configuration; "+DefaultConfig+" if it is there")
	return c
}

func becomeKeeper(f flags) error {
	file := f.config
	if file == "" {
		file = DefaultConfig
	}
	// Not the configured run folder: nobody knows it when the file is broken.
	args, warning, err := keeperArgs(file, f.config != "", lastArgs(defaults(os.Getenv).RunDir, file))
	if err != nil {
		return startError(err)
	}
	if warning != nil {
		newLogger(0).Warn("the keeper begins as the last one did", "err", warning)
	}
	return fmt.Errorf("start %s: %w", args[0], unix.Exec(args[0], args, os.Environ()))
}

// keeperArgs is the command line of the keeper by the configuration in file, which are kept in last. A file that somebody has just
// spoilt must not keep a keeper from coming back that has containers: it begins as the one before then, and the warning says why.
func keeperArgs(file string, must bool, last string) (args []string, warning, err error) {
	c := defaults(os.Getenv)
	err = readConfig(file, &c)
	if errors.Is(err, fs.ErrNotExist) && !must {
		err = nil
	}
	if err == nil {
		args, err = c.keeperArgs()
	}
	if err == nil {
		return args, keepArgs(last, args), nil
	}
	b, rerr := os.ReadFile(last)
	if rerr != nil || json.Unmarshal(b, &args) != nil || len(args) == 0 {
		return nil, nil, err
	}
	return args, err, nil
}

func (c *Config) keeperArgs() ([]string, error) {
	path := c.Keeper
	if path == "" {
		path = beside("wherry-keeper")
	}
	if path == "" {
		return nil, &term.Failure{Code: term.ExitFailed, Err: errors.New("wherry-keeper: neither beside wherry nor in /usr/lib/wherry")}
	}
	return []string{path, "--root", c.Root, "--run-dir", c.RunDir, "--cgroup-parent", c.CgroupParent}, nil
}

// lastArgs is where the arguments of the keeper by the configuration in file are kept, until the next boot.
func lastArgs(runDir, file string) string {
	if file == DefaultConfig {
		return filepath.Join(runDir, "keeper.args")
	}
	sum := sha256.Sum256([]byte(file))
	return filepath.Join(runDir, "keeper-"+hex.EncodeToString(sum[:8])+".args")
}

func keepArgs(path string, args []string) error {
	b, err := json.Marshal(args)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o711)
	}
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("keep the keeper's arguments: %w", err)
	}
	return nil
}
