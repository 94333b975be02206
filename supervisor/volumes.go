package supervisor

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// volumes turns the unit's volumes into mounts, and makes the folders of named
// and anonymous ones.
func (st *start) volumes(context.Context) error {
	for i, v := range st.app().Volumes {
		m, err := st.volume(i, v)
		if err != nil {
			return err
		}
		st.mounts = append(st.mounts, m)
	}
	st.mounts = sortMounts(st.mounts)
	return nil
}

func (st *start) volume(i int, v unit.Volume) (specs.Mount, error) {
	switch {
	case v.Type == "tmpfs":
		return tmpfs(v), nil
	case v.Type == "bind":
		// Docker makes a missing source, and then a typing error is an empty
		// folder of root's.
		if _, err := os.Stat(v.Source); err != nil {
			return specs.Mount{}, fmt.Errorf("bind %s: %w", v.Target, err)
		}
		return st.bind(v.Source, v), nil
	case v.Source == "":
		return st.anonymous(i, v)
	}
	dir := st.s.paths.volume(v.Source)
	if _, err := st.decide(v); err != nil {
		return specs.Mount{}, fmt.Errorf("volume %s: %w", v.Source, err)
	}
	st.populate = append(st.populate, runtime.Populate{Path: v.Target, Into: dir})
	return st.bind(dir, v), nil
}

// anonymous makes a volume that lives and dies with the run.
func (st *start) anonymous(i int, v unit.Volume) (specs.Mount, error) {
	dir := filepath.Join(st.dir(), "volumes", strconv.Itoa(i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return specs.Mount{}, fmt.Errorf("volume %s: %w", v.Target, err)
	}
	st.populate = append(st.populate, runtime.Populate{Path: v.Target, Into: dir})
	return st.bind(dir, v), nil
}

func (st *start) bind(source string, v unit.Volume) specs.Mount {
	options := st.shift([]string{"rbind", "rprivate"})
	if v.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Type: "bind", Source: source, Destination: path.Clean(v.Target), Options: options}
}

func tmpfs(v unit.Volume) specs.Mount {
	options := []string{"nosuid", "nodev", "noexec"}
	if v.Size > 0 {
		options = append(options, "size="+strconv.FormatInt(v.Size, 10))
	}
	mode := v.Mode
	if mode == 0 {
		mode = 0o1777
	}
	options = append(options, fmt.Sprintf("mode=%o", mode))
	if v.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: path.Clean(v.Target), Options: options}
}

// sortMounts puts a mount behind those whose target contains its own, whatever
// the order in the unit: else the outer would hide the inner.
func sortMounts(mounts []specs.Mount) []specs.Mount {
	mounts = slices.Clone(mounts)
	depth := func(m specs.Mount) int { return strings.Count(strings.TrimRight(path.Clean(m.Destination), "/"), "/") }
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int { return depth(a) - depth(b) })
	return mounts
}
