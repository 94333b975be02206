package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// identity is who a process runs as.
type identity struct {
	uid, gid int
	groups   []int
	home     string
}

// maxAccountFile is how much of an image's passwd or group file is read.
const maxAccountFile = 16 << 20

// lookupUser resolves want ("name", "uid", "name:group", "uid:gid", empty for
// root) by the account files below root. The files are an image's: they are
// opened without leaving root, and a device or pipe in their place is no file.
func lookupUser(root *os.File, want string) (identity, error) {
	passwd, err := accountFile(root, "/etc/passwd")
	if err != nil {
		return identity{}, err
	}
	group, err := accountFile(root, "/etc/group")
	if err != nil {
		return identity{}, err
	}
	u, err := user.GetExecUser(want, &user.ExecUser{Home: "/"}, strings.NewReader(passwd), strings.NewReader(group))
	if errors.Is(err, user.ErrNoPasswdEntries) || errors.Is(err, user.ErrNoGroupEntries) {
		return identity{}, fmt.Errorf("user %q: not in the image's /etc/passwd or /etc/group", want)
	}
	if err != nil {
		return identity{}, fmt.Errorf("user %q: %w", want, err)
	}
	// The primary group is a supplementary one too, or a process could shed it by a set-group-id program (CVE-2022-36109).
	groups := []int{u.Gid}
	for _, g := range u.Sgids {
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	return identity{uid: u.Uid, gid: u.Gid, groups: groups, home: u.Home}, nil
}

// giveRootCaps gives root, whatever its name is in the image, all that its
// programs may have: with no_new_privs they gain nothing by themselves. Other
// users have nothing in effect but what the spec says.
func giveRootCaps(caps *specs.LinuxCapabilities, uid int) {
	if caps == nil || uid != 0 || len(caps.Permitted) > 0 {
		return
	}
	caps.Permitted = slices.Clone(caps.Bounding)
	caps.Effective = slices.Clone(caps.Bounding)
}

// accountFile reads a file of the image; one that is not there is empty.
func accountFile(root *os.File, path string) (string, error) {
	f, err := openInRoot(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s: not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAccountFile))
	return string(b), err
}

// withHome adds HOME unless env has one.
func withHome(env []string, home string) []string {
	for _, kv := range env {
		if strings.HasPrefix(kv, "HOME=") {
			return env
		}
	}
	if home == "" {
		home = "/"
	}
	return append(env[:len(env):len(env)], "HOME="+home)
}
