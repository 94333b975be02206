package keeper

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
)

// addLabels has SELinux, where the host has it, keep the container and its files apart
// from the host's and from other runs'.
func (l *launch) addLabels() error {
	if !selinux.GetEnabled() {
		return nil
	}
	process, file := selinux.ContainerLabels() // of lxc_contexts; the categories are ours
	selinux.ReleaseLabel(process)
	if process == "" || file == "" {
		return nil // a policy without containers
	}
	spec := l.cfg.Spec
	process, file, err := chooseLabels(process, file, l.cfg.SELinux, l.cfg.Run)
	if err != nil {
		return err
	}
	spec.Process.SelinuxLabel, spec.Linux.MountLabel = process, file
	for i, m := range l.cfg.Rootfs {
		if filepath.Clean(m.Destination) == "/" {
			l.cfg.Rootfs[i].Options = append(slices.Clone(m.Options), "context="+file)
		}
	}
	return l.labelFiles(spec.Mounts, file)
}

// chooseLabels gives the labels of a process and of its files: the policy's for
// containers, with a pair of categories that belongs to the run alone, as its containers
// share memory, and what options change.
func chooseLabels(process, file, options, run string) (p, f string, err error) {
	label := strings.SplitN(process, ":", 4)
	files := strings.SplitN(file, ":", 4)
	if len(label) < 3 || len(files) < 3 {
		return "", "", fmt.Errorf("selinux: the policy's labels %q and %q are none", process, file)
	}
	level := runLevel(run)
	if options == "disable" {
		return "", strings.Join(append(files[:3:3], "s0"), ":"), nil
	}
	for option := range strings.FieldsSeq(options) {
		part, value, _ := strings.Cut(option, ":")
		switch part {
		case "user":
			label[0] = value
		case "role":
			label[1] = value
		case "type":
			label[2] = value
		case "level":
			level = value
		case "filetype":
			files[2] = value
		default:
			return "", "", fmt.Errorf("selinux %q: not a part of a label", option)
		}
	}
	return strings.Join(append(label[:3:3], level), ":"), strings.Join(append(files[:3:3], level), ":"), nil
}

// runLevel is one of half a million pairs of categories.
func runLevel(run string) string {
	const categories = 1024
	h := fnv.New32a()
	h.Write([]byte(run))
	n := h.Sum32() % (categories * (categories - 1) / 2)
	for first := uint32(0); ; first++ { // the pairs that begin with 0, with 1, ...
		rest := categories - 1 - first
		if n < rest {
			return fmt.Sprintf("s0:c%d,c%d", first, first+1+n)
		}
		n -= rest
	}
}

// labelFiles labels what we have made ourselves for containers, named volumes for all of
// them. What belongs to the host keeps its labels: to change them is its owner's to do.
func (l *launch) labelFiles(mounts []specs.Mount, file string) error {
	for _, m := range mounts {
		if m.Type != "bind" || !strings.HasPrefix(m.Source, l.k.layout.Root+"/") {
			continue
		}
		want := file
		if !strings.HasPrefix(m.Source, l.k.layout.Run(l.cfg.Run)+"/") {
			want = strings.Join(append(strings.SplitN(file, ":", 4)[:3:3], "s0"), ":")
		}
		if has, err := selinux.LfileLabel(m.Source); err == nil && has == want {
			continue
		}
		if err := selinux.Chcon(m.Source, want, true); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("selinux: label %s: %w", m.Source, err)
		}
	}
	return nil
}
