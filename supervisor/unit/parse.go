package unit

import (
	"path"
	"slices"
	"strings"
	"time"
)

// Options are what a unit file's meaning depends on besides its text. The zero
// value is good for a file that refers to no other.
type Options struct {
	// ReadFile reads what env_file names, by the name the unit file has; the
	// caller resolves it against the file's folder. It reports a missing file
	// with an error that is fs.ErrNotExist. Nil: a unit that names one is an error.
	ReadFile func(name string) ([]byte, error)

	// Dir is the absolute folder that relative host paths in volumes start
	// from. Empty: that of the file's name, which then must be absolute.
	Dir string

	// Defaults of the daemon's configuration.
	Defaults Defaults
}

// Defaults are the values of keys that a unit file leaves out. A field that is
// zero means the built-in default, which the reference shows.
type Defaults struct {
	Restart         RestartPolicy // all zero: the built-in policy
	StopGracePeriod Duration
	Logging         Logging
	Ulimits         []Ulimit // those of a unit win, name by name
	ShmSize         int64    // bytes; 0: 64 MiB
}

// The built-in defaults.
const (
	defaultGrace   = Duration(10 * time.Second)
	defaultLogSize = 10 << 20
	defaultLogFile = 3
)

// DefaultRestart is the built-in restart policy of a service: it is kept
// running however it ends.
func DefaultRestart() RestartPolicy {
	return RestartPolicy{
		Condition:  Any,
		Delay:      Duration(100 * time.Millisecond),
		Multiplier: 2,
		MaxDelay:   Duration(time.Minute),
		Jitter:     0.1,
		Interval:   Duration(10 * time.Minute),
		ResetAfter: Duration(time.Minute),
	}
}

// fill gives the fields that are zero their built-in values.
func (d Defaults) fill() Defaults {
	builtin := DefaultRestart()
	if r := &d.Restart; r.Condition == "" && r.Delay == 0 && r.Multiplier == 0 && r.MaxDelay == 0 && r.MaxAttempts == 0 &&
		r.Interval == 0 && r.ResetAfter == 0 && r.Jitter == 0 && len(r.NoRestartExitCodes) == 0 {
		*r = builtin
	}
	r := &d.Restart
	orDefault(&r.Condition, builtin.Condition)
	orDefault(&r.Delay, builtin.Delay)
	orDefault(&r.Multiplier, builtin.Multiplier)
	orDefault(&r.MaxDelay, max(builtin.MaxDelay, r.Delay))
	orDefault(&r.Interval, builtin.Interval)
	orDefault(&r.ResetAfter, builtin.ResetAfter)
	orDefault(&d.StopGracePeriod, defaultGrace)
	orDefault(&d.Logging.MaxSize, defaultLogSize)
	orDefault(&d.Logging.MaxFile, defaultLogFile)
	return d
}

func orDefault[T comparable](value *T, instead T) {
	var zero T
	if *value == zero {
		*value = instead
	}
}

// newUnit is a unit with nothing but defaults.
func newUnit(d Defaults) Unit {
	d = d.fill()
	return Unit{
		Kind:       Service,
		Replicas:   1,
		Network:    "bridge",
		Restart:    d.Restart,
		Containers: []Container{newContainer(OnlyContainer, d)},
	}
}

// newContainer is a container with nothing but defaults.
func newContainer(name string, d Defaults) Container {
	d = d.fill()
	return Container{
		Name:            name,
		PullPolicy:      "missing",
		StopGracePeriod: d.StopGracePeriod,
		Init:            true,
		Logging:         d.Logging,
		Ulimits:         slices.Clone(d.Ulimits),
		ShmSize:         d.ShmSize,
	}
}

// draft is a unit while its file is read.
type draft struct {
	unit     Unit
	app      *Container
	name     *node
	image    *node
	ports    *node
	restart  *node
	policy   *node
	envFiles []envFile
	env      map[string]string // of the key `environment`

	several *node             // the key containers
	files   []*containerDraft // of it
	own     *containerDraft   // if this is one of several
}

// Parse gives the meaning of a unit file. file is its name for messages and for
// the unit's default name. The error, if any, is of type Errors and holds
// everything that is wrong; warnings are given in any case.
func Parse(file string, data []byte, o Options) (Unit, []Warning, error) {
	p := &reader{file: file, o: o}
	d := &draft{unit: newUnit(o.Defaults), env: map[string]string{}}
	d.app = &d.unit.Containers[0]
	if root := p.readYAML(data); root != nil {
		if root.shape != mapping {
			p.fail(root, "", faultf("it begins with a line like `image: nginx`", "a unit file is a map, not %s", root.kind()))
		} else {
			unitTable.fill(p, root, d)
			p.finish(root, d)
		}
	}
	if len(p.errs) > 0 {
		return Unit{}, p.warns, p.errs.sorted()
	}
	return d.unit, p.warns, nil
}

// finish checks what concerns several keys at once.
func (p *reader) finish(root *node, d *draft) {
	start := &node{line: root.line, column: root.column}
	if d.name == nil {
		d.unit.Name = stem(p.file)
		if err := CheckName(d.unit.Name); err != nil {
			f := err.(*fault)
			p.fail(start, "name", faultf("set name, which is the file's name if left out", "name: %s", f.message))
		}
	}
	if d.several == nil && d.image == nil && root.get("image") == nil {
		p.fail(start, "image", faultf("", "image: is missing"))
	}
	if d.unit.Network != "bridge" && len(d.unit.Ports) > 0 {
		p.badf(d.ports, "leave one of them out", "there is nothing to publish with network: %s", d.unit.Network)
	}
	if d.restart != nil && d.policy != nil {
		later := d.restart
		if d.policy.line > later.line {
			later = d.policy
		}
		p.badf(later, "keep one of them", "restart and restart_policy exclude each other")
	}
	for _, dep := range d.unit.DependsOn {
		if dep.Unit == d.unit.Name {
			p.badf(root.get("depends_on"), "", "%s depends on itself", dep.Unit)
		}
	}
	if d.several != nil {
		p.containers(root, d)
		return
	}
	p.openings(root, &d.unit, d.app)
	p.environment(d)
}

// stem is a file's name without folder and ending.
func stem(file string) string {
	base := path.Base(strings.ReplaceAll(file, `\`, "/"))
	for _, ending := range []string{".yaml", ".yml", ".json"} {
		if short, ok := strings.CutSuffix(base, ending); ok {
			return short
		}
	}
	return base
}

const longestName = 63

// CheckName tells what is wrong with a unit's name. One that ends like the
// name of an instance or a run would make every command's target ambiguous.
func CheckName(name string) error {
	switch {
	case name == "":
		return faultf("", "a name is not empty")
	case len(name) > longestName:
		return faultf("", "%q is longer than %d characters", name, longestName)
	case !isName(name):
		return faultf("it begins with a-z or 0-9 and goes on with letters, digits, _ . and -", "%q is not a name", name)
	case isRunName(name):
		return faultf("names like web.1 belong to instances", "%q ends like an instance's name", name)
	}
	return nil
}

func checkImage(ref string) error {
	if isImage(ref) {
		return nil
	}
	hint := "write it like nginx:1.27 or host/path:tag"
	if strings.ToLower(ref) != ref && isImage(strings.ToLower(ref)) {
		hint = "the path has lower-case letters only"
	}
	return faultf(hint, "%q is not an image", ref)
}
