package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/utils"
)

// ociState is what state and list show, in runc's words.
type ociState struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func stateOf(lc *libcontainer.Container) (ociState, error) {
	status, err := lc.Status()
	if err != nil {
		return ociState{}, err
	}
	st, err := lc.State()
	if err != nil {
		return ociState{}, err
	}
	out := ociState{
		Version: st.Config.Version, ID: st.ID, Pid: st.InitProcessPid, Status: status.String(),
		Rootfs: st.Config.Rootfs, Created: st.Created,
	}
	if status == libcontainer.Stopped {
		out.Pid = 0
	}
	out.Bundle, out.Annotations = utils.Annotations(st.Config.Labels)
	return out, nil
}

func (o *oci) state(args []string) error {
	lc, err := o.load("state", args)
	if err != nil {
		return err
	}
	st, err := stateOf(lc)
	if err != nil {
		return err
	}
	return printJSON(st, "  ")
}

func printJSON(v any, indent string) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", indent)
	return e.Encode(v)
}

func (o *oci) list(args []string) error {
	fs := newOCIFlags("list")
	format, quiet := "table", false
	ociAlias(fs, &format, "table or json", "format", "f")
	ociAlias(fs, &quiet, "names only", "quiet", "q")
	if _, err := ociParse(fs, args, false, 0, 0); err != nil {
		return err
	}
	states, err := o.states()
	if err != nil {
		return err
	}
	switch {
	case quiet:
		for _, s := range states {
			fmt.Println(s.ID)
		}
		return nil
	case format == "json":
		return json.NewEncoder(os.Stdout).Encode(states)
	case format == "table":
		w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range states {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return w.Flush()
	}
	return fmt.Errorf("--format %q: table or json", format)
}

// states are all containers below the root. What cannot be read is told on
// stderr.
func (o *oci) states() ([]ociState, error) {
	dir, err := os.ReadDir(o.root)
	if errors.Is(err, os.ErrNotExist) && !o.rootSet {
		return nil, nil // no container yet
	}
	if err != nil {
		return nil, err
	}
	var out []ociState
	for _, d := range dir {
		if !d.IsDir() || d.Name() == filepath.Base(o.helpers()) {
			continue
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		lc, err := o.find(d.Name())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		st, err := stateOf(lc)
		if err != nil {
			fmt.Fprintf(os.Stderr, "container %s: %v\n", d.Name(), err)
			continue
		}
		st.Owner = ownerName(info)
		out = append(out, st)
	}
	return out, nil
}

func ownerName(info os.FileInfo) string {
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	if u, err := user.LookupUid(uid); err == nil {
		return u.Name
	}
	return "#" + strconv.Itoa(uid)
}

func (o *oci) ps(args []string) error {
	fs := newOCIFlags("ps")
	format := "table"
	ociAlias(fs, &format, "table or json", "format", "f")
	words, err := ociParse(fs, args, true, 1, -1)
	if err != nil {
		return err
	}
	lc, err := o.find(words[0])
	if err != nil {
		return err
	}
	pids, err := lc.Processes()
	if err != nil {
		return err
	}
	switch format {
	case "json":
		return json.NewEncoder(os.Stdout).Encode(pids)
	case "table":
		return psTable(pids, words[1:])
	}
	return fmt.Errorf("--format %q: table or json", format)
}

// psTable lets ps(1) do it, and drops everybody else's lines.
func psTable(pids []int, args []string) error {
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	out, err := exec.Command("ps", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ps: %w: %s", err, out)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errors.New("ps: its output has no column PID")
	}
	fmt.Println(lines[0])
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if column >= len(f) {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Println(line)
		}
	}
	return nil
}
