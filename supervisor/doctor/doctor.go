package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Options say what the daemon of this host is, or would be, configured to do.
// The zero value looks at the defaults of a daemon that does not run.
type Options struct {
	Root          string // empty: /var/lib/wherry
	RunDir        string // empty: /run/wherry
	Units         string // folder of unit files; empty: none
	Config        string // path of wherry.yaml, for remedies; empty: /etc/wherry/wherry.yaml
	ConfigErr     error  // what is wrong with it
	Keeper        string // path of wherry-keeper; empty: as the runtime finds it
	KeeperManaged bool   // a service manager runs the keeper
	CgroupParent  string // empty: wherry
	CgroupDriver  string // empty: cgroupfs
	Bridge        string // empty: wherry0
	Subnet        netip.Prefix
	UserNS        string // default of units; empty: auto
	High          int    // percent of the disk in use at which images are collected; 0: 85

	// Images are the store's: registries, credentials, form of layers, reserve.
	Images image.Options

	// Hosts are registries that units use, besides those of Images and of the files in Units.
	Hosts []string

	// AskRegistries also asks the registries themselves whether they take the
	// credentials. Otherwise credentials are only looked for, as a pull does.
	AskRegistries bool

	// Daemon describes the one that runs; an error says that it does not answer.
	// nil: there is none to ask.
	Daemon func(context.Context) (api.Info, error)

	Limit time.Duration // of one check; 0: 5 s

	host   *host   // tests; nil: this one
	probes *probes // tests; nil: the kernel's answers
}

const defaultLimit = 5 * time.Second

func (o Options) withDefaults() Options {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&o.Root, "/var/lib/wherry")
	set(&o.RunDir, "/run/wherry")
	set(&o.Config, "/etc/wherry/wherry.yaml")
	set(&o.CgroupParent, "wherry")
	set(&o.Bridge, "wherry0")
	if o.High == 0 {
		o.High = 85
	}
	if o.Limit == 0 {
		o.Limit = defaultLimit
	}
	if o.host == nil {
		o.host = thisHost()
	}
	if o.probes == nil {
		o.probes = realProbes(o)
	}
	return o
}

// Run looks at everything once.
func Run(ctx context.Context, o Options) api.Diagnosis { return new(Doctor).Run(ctx, o) }

// Doctor remembers which checks hang, so that asking again does not leave
// another thread behind each time. It is safe for concurrent use.
type Doctor struct {
	mu      sync.Mutex
	hanging map[string]bool
}

// Run looks at everything, all checks side by side. It takes little longer than Options.Limit at most.
func (d *Doctor) Run(ctx context.Context, o Options) api.Diagnosis {
	e := newExam(o.withDefaults())
	list := append(checks[:len(checks):len(checks)], e.registryChecks(ctx)...)
	out := api.Diagnosis{Checks: make([]api.Check, len(list))}
	var wg sync.WaitGroup
	for i, c := range list {
		wg.Go(func() {
			f := d.bounded(ctx, e, c)
			out.Checks[i] = api.Check{Name: c.name, Verdict: f.verdict, Detail: f.detail, Remedy: f.remedy}
		})
	}
	wg.Wait()
	return out
}

// bounded is the check's finding, or that it gives none in time. Its goroutine then stays,
// in the kernel, until whatever it waits for comes.
func (d *Doctor) bounded(ctx context.Context, e *exam, c check) finding {
	if c.root && e.h.uid != 0 {
		return skip("only root sees it: sudo wherry ctl doctor")
	}
	if !d.begin(c.name) {
		return failed("still no answer since an earlier look", stuckRemedy(c))
	}
	ctx, cancel := context.WithTimeout(ctx, e.o.Limit)
	defer cancel()
	found := make(chan finding, 1)
	go func() {
		defer d.end(c.name)
		defer func() {
			if v := recover(); v != nil {
				found <- failed(fmt.Sprintf("the check itself failed: %v", v), "report it, with the output of `wherry ctl doctor --format json`")
			}
		}()
		found <- c.look(ctx, e)
	}()
	select {
	case f := <-found:
		return f
	case <-ctx.Done():
	}
	select { // an answer that came with the deadline
	case f := <-found:
		return f
	case <-time.After(e.o.Limit / 50):
		return failed(fmt.Sprintf("no answer within %v", e.o.Limit), stuckRemedy(c))
	}
}

func (d *Doctor) begin(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hanging[name] {
		return false
	}
	if d.hanging == nil {
		d.hanging = map[string]bool{}
	}
	d.hanging[name] = true
	return true
}

func (d *Doctor) end(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.hanging, name)
}

func stuckRemedy(c check) string {
	if c.stuck != "" {
		return c.stuck
	}
	return "look for what hangs: `ps -eo pid,stat,wchan:30,cmd | grep ' D'`, and `dmesg | tail`"
}
