package unit

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/wherry-run/wherry/cgroup"
)

// change alters the value a little and gives back how to undo it.
func change(v reflect.Value) (undo func()) {
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1e9)
	case reflect.Uint32:
		v.SetUint(v.Uint() + 1)
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		v.SetBytes([]byte("[]"))
	case reflect.Map:
		if v.Type() == reflect.TypeFor[map[string]int64]() {
			v.Set(reflect.ValueOf(map[string]int64{"2MB": 2 << 20}))
			break
		}
		v.Set(reflect.ValueOf(map[string]string{"new": "value"}))
	case reflect.Uint16, reflect.Uint64:
		v.SetUint(v.Uint() + 128)
	default:
		panic(v.Kind())
	}
	return func() { v.Set(old) }
}

// leaves calls visit for every field below a value.
func leaves(path string, v reflect.Value, visit func(path string, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(path+"."+v.Type().Field(i).Name, v.Field(i), visit)
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			visit(path, v)
			return
		}
		if v.Len() == 0 {
			panic(path + " is empty: the sample must have one")
		}
		leaves(path+"[0]", v.Index(0), visit)
	default:
		visit(path, v)
	}
}

// A field that is added to Unit must not be forgotten in Diff.
func TestDiffSeesEveryField(t *testing.T) {
	sample := func() Unit {
		u := newUnit(Defaults{})
		u.Ports = []Port{{Port: 80, Protocol: "tcp"}}
		u.DependsOn = []Dependency{{Unit: "db", Condition: started}}
		u.Restart.NoRestartExitCodes = []int{78}
		c := &u.Containers[0]
		c.Entrypoint, c.Command = []string{"a"}, []string{"b"}
		c.CapAdd, c.CapDrop = []string{"ALL"}, []string{"ALL"}
		c.Volumes = []Volume{{Type: tmpfs, Target: "/tmp"}}
		c.DependsOn = []ContainerDependency{{Container: "php", Condition: started}}
		c.Devices, c.CDI = []Device{{Source: "/dev/a", Target: "/dev/b", Permissions: "rw"}}, []string{"a.b/c=d"}
		c.SeccompProfile = json.RawMessage("{}")
		c.Ulimits, c.GroupAdd = []Ulimit{{Name: "nofile"}}, []string{"a"}
		io := &c.Limits.IO
		io.ReadBytes, io.WriteBytes = []cgroup.Rate{{Device: "/dev/a", Rate: 1}}, []cgroup.Rate{{Device: "/dev/a", Rate: 1}}
		io.Reads, io.Writes = []cgroup.Rate{{Device: "/dev/a", Rate: 1}}, []cgroup.Rate{{Device: "/dev/a", Rate: 1}}
		c.PostStart, c.PreStop = []Hook{{Command: []string{"a"}}}, []Hook{{Command: []string{"b"}}}
		return u
	}
	u := sample()
	leaves("", reflect.ValueOf(&u).Elem(), func(path string, v reflect.Value) {
		undo := change(v)
		if len(Diff(sample(), u)) == 0 {
			t.Errorf("%s: a change is not seen", path)
		}
		if Equal(sample(), u) || sample().Digest() == u.Digest() {
			t.Errorf("%s: units that differ are equal", path)
		}
		undo()
	})
	if d := Diff(sample(), u); len(d) != 0 {
		t.Errorf("equal units differ: %v", d)
	}
}

func TestDiff(t *testing.T) {
	parse := func(text string) Unit {
		u, _, err := Parse("web.yaml", []byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	old := parse("image: nginx:1\nenvironment: {A: 1, B: 2}\nresources: {limits: {memory: 512M}}\nports: [80:80]\n")
	new := parse("image: nginx:2\nenvironment: {A: 1, C: ''}\nresources: {limits: {memory: 1536M}}\nports: [80:80, 443:443]\nstop_grace_period: 1m\n" +
		"depends_on: {db: {required: false}}\nvolumes: [data:/data:ro]\ncommand: [a, b c]\n")
	want := []Change{
		{"ports", "80:80", "80:80, 443:443"},
		{"depends_on.db", "", "started, not required"},
		{"containers.app.image", "nginx:1", "nginx:2"},
		{"containers.app.command", "", "a 'b c'"},
		{"containers.app.environment.C", "", `""`},
		{"containers.app.environment.B", "2", ""},
		{"containers.app.limits.memory", "512MiB", "1536MiB"},
		{"containers.app.volumes./data", "", "volume data:/data:ro"},
		{"containers.app.stop_grace_period", "10s", "1m"},
	}
	if got := Diff(old, new); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestSameRun(t *testing.T) {
	base := Unit{Name: "web", Replicas: 1, Network: "bridge", Containers: []Container{{Name: "app", Image: "nginx"}}}
	for _, c := range []struct {
		what   string
		change func(*Unit)
		want   bool
	}{
		{"nothing", func(*Unit) {}, true},
		{"replicas", func(u *Unit) { u.Replicas = 5 }, true},
		{"restart policy", func(u *Unit) { u.Restart.Condition = Never }, true},
		{"dependencies", func(u *Unit) { u.DependsOn = []Dependency{{Unit: "db"}} }, true},
		{"labels", func(u *Unit) { u.Labels = map[string]string{"a": "b"} }, true},
		{"ports", func(u *Unit) { u.Ports = []Port{{Port: 80}} }, false},
		{"image", func(u *Unit) { u.Containers = []Container{{Name: "app", Image: "redis"}} }, false},
		{"credentials", func(u *Unit) {
			u.Containers = []Container{{Name: "app", Image: "nginx", RegistryAuth: RegistryAuth{TokenFile: "/t"}}}
		}, true},
		{"limits", func(u *Unit) {
			u.Containers = []Container{{Name: "app", Image: "nginx", Limits: cgroup.Limits{Memory: 1 << 30, Pids: 5}}}
		}, true},
		{"oom", func(u *Unit) {
			u.Containers = []Container{{Name: "app", Image: "nginx", OOM: "process"}}
		}, false},
		{"quota", func(u *Unit) {
			u.Containers = []Container{{Name: "app", Image: "nginx", StorageOpt: StorageOpt{Size: 1 << 30}}}
		}, false},
	} {
		other := base
		c.change(&other)
		was := other.Digest()
		if got := SameRun(base, other); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
		if other.Digest() != was {
			t.Errorf("%s: the comparison changed the unit", c.what)
		}
	}
}
