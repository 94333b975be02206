package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func mountAt(list []specs.Mount, target string) (specs.Mount, int) {
	i := slices.IndexFunc(list, func(m specs.Mount) bool { return m.Destination == target })
	if i < 0 {
		return specs.Mount{}, -1
	}
	return list[i], i
}

func TestVolumes(t *testing.T) {
	source := t.TempDir()
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		w.Images.Config.Volumes = []string{"/data", "/image"}
		d := begin(t, o)
		defer d.end()
		d.apply(web + "volumes: [\"" + source + ":/data/deep/bind:ro\", \"named:/data\", /anon, {type: tmpfs, target: /tmp, size: 64MiB}]\n")
		d.want("web", "running")
		c := w.Runtime.Config("web.1")
		run := d.unit("web").Instances[0].Run
		bind, at := mountAt(c.Spec.Mounts, "/data/deep/bind")
		if bind.Source != source || !slices.Contains(bind.Options, "ro") {
			t.Errorf("bind %+v", bind)
		}
		named, before := mountAt(c.Spec.Mounts, "/data")
		if named.Source != d.paths.volume("named") || before > at {
			t.Errorf("named %+v at %d, bind below it at %d", named, before, at)
		}
		for _, target := range []string{"/anon", "/image"} {
			m, _ := mountAt(c.Spec.Mounts, target)
			if !strings.HasPrefix(m.Source, filepath.Join(d.paths.container(run, "app"), "volumes")) {
				t.Errorf("anonymous %s: %+v", target, m)
			}
		}
		if m, _ := mountAt(c.Spec.Mounts, "/tmp"); m.Type != "tmpfs" || !slices.Contains(m.Options, "size=67108864") {
			t.Errorf("tmpfs %+v", m)
		}
		var populated []string
		for _, p := range c.Populate {
			populated = append(populated, p.Path)
		}
		slices.Sort(populated)
		if !slices.Equal(populated, []string{"/anon", "/data", "/image"}) {
			t.Errorf("populated %v", populated)
		}
		keep := filepath.Join(d.paths.volume("named"), "kept")
		if err := os.WriteFile(keep, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		d.empty(w)
		if _, err := os.Stat(keep); err != nil {
			t.Error("rm took a named volume's content")
		}
		d.apply(web + "volumes: [/no/such/place:/x]\n")
		time.Sleep(time.Second)
		if e := d.unit("web").Instances[0].Error; !strings.HasPrefix(e, "volumes: bind /x: ") || !strings.Contains(e, "/no/such/place") {
			t.Errorf("missing source: %q", e)
		}
	})
}

func TestFilesInside(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		defer d.end()
		d.apply(web)
		u := d.unit("web")
		dir := d.paths.container(u.Instances[0].Run, "app")
		hosts, _ := os.ReadFile(dir + "/hosts")
		name, _ := os.ReadFile(dir + "/hostname")
		if !strings.Contains(string(hosts), u.Instances[0].Address+"\tweb-1\n") || string(name) != "web-1\n" {
			t.Errorf("%s%s", hosts, name)
		}
		c := w.Runtime.Config("web.1")
		if m, _ := mountAt(c.Spec.Mounts, "/etc/hosts"); m.Source != dir+"/hosts" {
			t.Errorf("%+v", m)
		}
	})
}

func TestRandomPortStays(t *testing.T) {
	world(t, func(t *testing.T, w *supervisortest.World, o Options) {
		d := begin(t, o)
		d.apply(web + "ports: [\"8080\"]\n")
		port := d.unit("web").Ports[0].HostPort
		if port == 0 {
			t.Fatalf("%+v", d.unit("web"))
		}
		if _, err := d.Stop(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		// Who asks between two runs learns where the next one will be.
		if between := d.unit("web").Ports[0].HostPort; between != port {
			t.Errorf("port %d, once stopped %d", port, between)
		}
		time.Sleep(time.Second)
		d.end()
		d = begin(t, o)
		defer d.end()
		if _, err := d.Start(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		if again := d.unit("web").Ports[0].HostPort; again != port {
			t.Errorf("port %d, then %d", port, again)
		}
		// It is only a preference.
		w.Network.Take(uint16(port))
		if _, err := d.Restart(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
			t.Fatal(err)
		}
		if again := d.unit("web").Ports[0].HostPort; again == port || again == 0 {
			t.Errorf("port %d though it is taken", again)
		}
		d.empty(w)
	})
}

func TestByDigest(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":                     "nginx@sha256:1",
		"nginx:1.27":                "nginx@sha256:1",
		"localhost:5000/a/b":        "localhost:5000/a/b@sha256:1",
		"localhost:5000/a/b:tag":    "localhost:5000/a/b@sha256:1",
		"a/b:tag@sha256:0123456789": "a/b@sha256:1",
	} {
		if got := byDigest(ref, "sha256:1"); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
}

func TestPortsOverlap(t *testing.T) {
	p := func(ip string, host int, proto string) unit.Port {
		return unit.Port{HostIP: ip, HostPort: host, Port: 1, Protocol: proto}
	}
	for _, c := range []struct {
		a, b unit.Port
		want bool
	}{
		{p("", 80, "tcp"), p("127.0.0.1", 80, "tcp"), true},
		{p("0.0.0.0", 80, "tcp"), p("10.0.0.1", 80, "tcp"), true},
		{p("10.0.0.1", 80, "tcp"), p("127.0.0.1", 80, "tcp"), false},
		{p("", 80, "tcp"), p("", 80, "udp"), false},
		{p("", 80, "tcp"), p("", 81, "tcp"), false},
		{p("", 0, "tcp"), p("", 0, "tcp"), false},
	} {
		if got := overlap(c.a, c.b); got != c.want {
			t.Errorf("%+v %+v: %v", c.a, c.b, got)
		}
	}
}

func TestResolvingIsShared(t *testing.T) {
	var r resolving
	k, err := r.lock(t.Context(), "web/1")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string)
	go func() {
		k, err := r.lock(context.Background(), "web/1")
		if err != nil {
			t.Error(err)
		}
		got <- k.digest
		r.unlock("web/1", k)
		close(got)
	}()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.lock(ended, "web/1"); err == nil {
		t.Error("a waiter whose context ended got the lock")
	}
	k.digest = "sha256:1"
	r.unlock("web/1", k)
	if d := <-got; d != "sha256:1" && d != "" {
		t.Errorf("%q", d)
	}
	<-got
	if len(r.keys) != 0 {
		t.Error("an answer is kept for ever")
	}
}
