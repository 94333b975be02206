package supervisor

import (
	"context"
	"fmt"
	"net"
	"reflect"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/apiserver"
)

// setting is one option that a reload compares.
type setting struct {
	name string
	get  func(*Options) any
	// set takes the value over while units run; nil: only a restart does.
	set func(to, from *Options)
}

var settings = []setting{
	{"units", func(o *Options) any { return o.Units }, func(to, from *Options) { to.Units = from.Units }},
	{"auto_apply", func(o *Options) any { return !o.NoAutoApply }, func(to, from *Options) { to.NoAutoApply = from.NoAutoApply }},
	{"logging", func(o *Options) any { return o.Logging }, func(to, from *Options) { to.Logging = from.Logging }},
	{"logging.total", func(o *Options) any { return o.LogTotal }, func(to, from *Options) { to.LogTotal = from.LogTotal }},
	{"defaults", func(o *Options) any { return o.Defaults }, func(to, from *Options) { to.Defaults = from.Defaults }},
	{"gc", func(o *Options) any { return o.GC }, func(to, from *Options) { to.GC = from.GC }},
	{"layers", func(o *Options) any { return o.Layers }, nil},
	{"gc.reserve", func(o *Options) any { return o.Reserve }, nil},
	{"root", func(o *Options) any { return o.Root }, nil},
	{"run_dir", func(o *Options) any { return o.RunDir }, nil},
	{"socket", func(o *Options) any { return o.Socket }, nil},
	{"socket_group", func(o *Options) any { return o.SocketGroup }, nil},
	{"keeper", func(o *Options) any { return o.Keeper }, nil},
	{"cgroup_parent", func(o *Options) any { return o.CgroupParent }, nil},
	{"cgroup_driver", func(o *Options) any { return o.CgroupDriver }, nil},
	{"shutdown.budget", func(o *Options) any { return o.ShutdownBudget }, func(to, from *Options) { to.ShutdownBudget = from.ShutdownBudget }},
	{"network.bridge", func(o *Options) any { return o.Bridge }, nil},
	{"network.subnet", func(o *Options) any { return o.Subnet }, nil},
}

// registrySettings belong to the image store.
var registrySettings = []setting{
	{"registries", func(o *Options) any { return o.Registries }, func(to, from *Options) { to.Registries = from.Registries }},
	{"docker_config", func(o *Options) any { return o.DockerConfig }, func(to, from *Options) { to.DockerConfig = from.DockerConfig }},
}

// Reload reads the configuration again: what can change while units run does,
// the rest is named.
func (s *Supervisor) Reload(ctx context.Context, by string) (api.ReloadResult, error) {
	old := s.opts.Load()
	if old.Reload == nil {
		return api.ReloadResult{}, invalid("reload: this daemon was started without a configuration to read again")
	}
	fresh, err := old.Reload()
	if err != nil {
		return api.ReloadResult{}, fmt.Errorf("reload: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return api.ReloadResult{}, err
	}
	fresh = fresh.withDefaults()
	if err := imageOptions(fresh, s.paths).Check(); err != nil {
		return api.ReloadResult{}, &fileErrors{fmt.Errorf("reload: %w", err)}
	}
	next, res := *old, api.ReloadResult{Applied: []string{}, NeedsRestart: []string{}}
	for _, st := range append(registrySettings[:len(registrySettings):len(registrySettings)], settings...) {
		if reflect.DeepEqual(st.get(old), st.get(&fresh)) {
			continue
		}
		isImages := st.name == "registries" || st.name == "docker_config"
		if st.set == nil || isImages && !s.canReconfigure() {
			res.NeedsRestart = append(res.NeedsRestart, st.name)
			continue
		}
		st.set(&next, &fresh)
		res.Applied = append(res.Applied, st.name)
	}
	if s.canReconfigure() {
		// Also if nothing differs: the files that are named may have new content.
		s.img.(reconfigurer).Reconfigure(imageOptions(next, s.paths))
	}
	s.opts.Store(&next)
	select {
	case s.refolder <- struct{}{}:
	default:
	}
	select {
	case <-s.ready:
		if s.renewKeeper(ctx) { // its file may be another one by now
			res.Applied = append(res.Applied, "keeper")
		}
	default: // it is looked at anyway
	}
	s.event(api.Event{Type: event.Reload, By: by, Message: "the configuration was read again",
		Fields: map[string]any{"applied": res.Applied, "needs_restart": res.NeedsRestart}})
	return res, nil
}

// reconfigurer is an image store whose registries can change while it is used.
type reconfigurer interface{ Reconfigure(image.Options) }

func (s *Supervisor) canReconfigure() bool {
	_, ok := s.img.(reconfigurer)
	return ok
}

// listen makes the API's socket; nil if none is wanted.
func (s *Supervisor) listen() (net.Listener, error) {
	o := s.opts.Load()
	if s.early != nil {
		return s.early, nil
	}
	if o.Listener != nil || o.Socket == "" {
		return o.Listener, nil
	}
	ln, err := apiserver.Listen(o.Socket, o.SocketGroup)
	if err != nil {
		return nil, err
	}
	return ln, nil
}
