package keeper

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime"
)

func TestScopesOfRuns(t *testing.T) {
	for _, c := range []struct{ parent, run, name, slice, group string }{
		{"/wherry.slice/wherry-cargo.service", "web.1-7f3k", "wherry-web.1-7f3k.scope", "wherry.slice", "/wherry.slice/wherry-web.1-7f3k.scope"},
		{"/wherry", "a+b", `wherry-a\x2bb.scope`, "wherry.slice", `/wherry.slice/wherry-a\x2bb.scope`},
		{"/a.slice/a-b.slice/x.service", "r", "wherry-r.scope", "a-b.slice", "/a.slice/a-b.slice/wherry-r.scope"},
	} {
		k := &Keeper{options: options{cgroupParent: c.parent}}
		s, err := k.newScope(c.run)
		if err != nil || s != (scope{name: c.name, slice: c.slice, group: c.group}) {
			t.Errorf("%s in %s: %+v, %v", c.run, c.parent, s, err)
		}
		if !isScope(s.group) || isScope(c.parent+"/"+c.run) {
			t.Errorf("%s: which is a scope?", c.run)
		}
	}
}

// A run stays where it is when the driver changes.
func TestGroupOfARunThatIsThere(t *testing.T) {
	k := &Keeper{options: options{cgroupParent: "/wherry"}, containers: map[string]*container{}, shared: map[string]*shared{}}
	old := state{}
	old.ID, old.Run, old.Cgroup = "a.1-x.app", "a.1-x", "/wherry/a.1-x/app"
	k.containers[old.ID] = newContainer(old)
	k.shared["b.1-x"] = &shared{st: sharedState{Group: "/wherry.slice/wherry-b.1-x.scope"}}
	for _, c := range []struct{ run, driver, want string }{
		{"a.1-x", runtime.DriverSystemd, "/wherry/a.1-x"},
		{"b.1-x", "", "/wherry.slice/wherry-b.1-x.scope"},
		{"c.1-x", "", "/wherry/c.1-x"},
		{"c.1-x", runtime.DriverSystemd, "/wherry.slice/wherry-c.1-x.scope"},
	} {
		if got, err := k.runGroup(c.run, c.driver); err != nil || got != c.want {
			t.Errorf("%s by %q: %s, %v, want %s", c.run, c.driver, got, err, c.want)
		}
	}
}

// A systemd that answers nobody holds a start up until the deadline, and one that is not there does not.
func TestSystemdDoesNotAnswer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "private")
	m := serviceManager{socket: socket, deadline: 50 * time.Millisecond}
	s := scope{name: "wherry-x.scope", slice: "wherry.slice"}
	if err := m.startScope(t.Context(), s, 1); err == nil || errors.Is(err, errNoAnswer) || !strings.Contains(err.Error(), "connect to systemd") {
		t.Errorf("nobody there: %v", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := m.startScope(t.Context(), s, 1); !errors.Is(err, errNoAnswer) {
		t.Errorf("one that accepts and says nothing: %v", err)
	}
}

func TestWhatIsOurs(t *testing.T) {
	for _, c := range []struct {
		parent, group string
		want          bool
	}{
		{"/wherry", "/wherry", true},
		{"/wherry", "/", false},
		{"/a/wherry", "/a", false},
		{"/system.slice/x.service", "/system.slice", false},
		{"/system.slice/x.service/units", "/system.slice/x.service/units", true},
		{"/wherry.slice/wherry-cargo.service", "/wherry.slice", true},
		{"/wherry.slice/wherry-cargo.service", "/user.slice", false},
	} {
		k := &Keeper{options: options{cgroupParent: c.parent}}
		if got := k.ours(c.group); got != c.want {
			t.Errorf("%s of a keeper in %s: %v", c.group, c.parent, got)
		}
	}
}
