package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/supervisortest"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// folder is a units folder. Its tests run in real time: inotify does not know
// the clock of synctest.
type folder struct {
	t   *testing.T
	dir string
}

func (f folder) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// forbearance is a time that no test needs, on a slow and loaded machine either.
const forbearance = 3 * time.Minute

// until waits for a condition.
func until(t *testing.T, d *daemon, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(forbearance); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s: %+v %v", what, d.Units(), d.Info().Warnings)
		}
	}
}

func (d *daemon) find(name string) api.Unit {
	for _, u := range d.Units() {
		if u.Name == name {
			return u
		}
	}
	return api.Unit{}
}

func realDaemon(t *testing.T) (folder, *supervisortest.World, Options) {
	f := folder{t, t.TempDir()}
	w := supervisortest.New()
	o := Options{Root: t.TempDir(), RunDir: t.TempDir(), Units: f.dir}
	o.hooks = hooks{containers: w.Runtime, networks: w.Network, images: w.Images}
	return f, w, o
}

func TestUnitsFolder(t *testing.T) {
	f, _, o := realDaemon(t)
	f.write("web.yaml", "image: nginx:1\nenv_file: web.env\ndepends_on: [db]\n")
	f.write("web.env", "A=1\n")
	f.write("db.yaml", "image: redis\n")
	f.write("bad.yaml", "imag: x\n")
	f.write(".hidden.yaml", "imag: x\n")
	d := begin(t, o)
	defer func() { d.end() }()
	if u := d.find("web"); u.Revision != 1 {
		t.Fatalf("not applied when ready: %+v", d.Units())
	}
	if warnings := strings.Join(d.Info().Warnings, "\n"); !strings.Contains(warnings, "bad.yaml:1:1") {
		t.Errorf("no word of the bad file: %q", warnings)
	}
	until(t, d, "both run", func() bool { return d.find("web").State == "running" })

	// An env file belongs to the unit.
	f.write("web.env", "A=2\n")
	until(t, d, "revision 2", func() bool { return d.find("web").Revision == 2 })
	detail, err := d.Unit(t.Context(), "web")
	if err != nil || detail.Definition.Containers[0].Environment["A"] != "2" || detail.Revisions[0].By != byFolder {
		t.Fatalf("%+v %v", detail, err)
	}

	// A bad file keeps what runs, and says why.
	f.write("web.yaml", "image: [\n")
	until(t, d, "pending", func() bool { return d.find("web").Pending != nil })
	if u := d.find("web"); u.Revision != 2 || u.Pending.Source != filepath.Join(f.dir, "web.yaml") {
		t.Errorf("%+v", u)
	}
	f.write("web.yaml", "image: nginx:3\nenv_file: web.env\ndepends_on: [db]\n")
	until(t, d, "revision 3", func() bool { u := d.find("web"); return u.Revision == 3 && u.Pending == nil })

	// A file that is gone stops nothing.
	if err := os.Remove(filepath.Join(f.dir, "db.yaml")); err != nil {
		t.Fatal(err)
	}
	until(t, d, "db pending", func() bool { return d.find("db").Pending != nil })
	if u := d.find("db"); u.Intent != "running" || !strings.Contains(u.Pending.Reason, "rm db") {
		t.Errorf("%+v", u)
	}

	// What was removed by hand does not come back with the next daemon, but
	// with the file's next change.
	if _, err := d.Remove(t.Context(), api.ActRequest{Units: []string{"web"}}, "tester"); err != nil {
		t.Fatal(err)
	}
	d.end()
	d = begin(t, o)
	if u := d.find("web"); u.Name != "" {
		t.Fatalf("removed, and back: %+v", u)
	}
	f.write("web.yaml", "image: nginx:4\n")
	until(t, d, "web is back", func() bool { return d.find("web").State == "running" })
	if n := count(d.types("bad"), event.ApplyFailed); n != 2 {
		t.Errorf("%d complaints about the same mistake by two daemons", n)
	}
}

// TestRefusedFileIsTriedAgain: what was in the way of a file need not be in the
// folder, so that nothing there changes when it goes away.
func TestRefusedFileIsTriedAgain(t *testing.T) {
	f, _, o := realDaemon(t)
	o.hooks.rescan = 20 * time.Millisecond
	env := filepath.Join(t.TempDir(), "late.env")
	d := begin(t, o)
	defer func() { d.end() }()
	if _, err := d.Apply(t.Context(), api.ApplyRequest{Files: []api.File{{Source: "one.yaml", Text: "image: nginx\nports: [\"8080:80\"]\n"}}}, "test"); err != nil {
		t.Fatal(err)
	}
	f.write("two.yaml", "image: nginx\nports: [\"8080:80\"]\n")
	f.write("late.yaml", "image: nginx\nenv_file: "+env+"\n")
	until(t, d, "both files are refused", func() bool {
		w := strings.Join(d.Info().Warnings, "\n")
		return strings.Contains(w, "published by unit one") && strings.Contains(w, "late.env")
	})
	if _, err := d.Remove(t.Context(), api.ActRequest{Units: []string{"one"}}, "test"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(env, []byte("A=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, d, "both run", func() bool { return d.find("two").State == "running" && d.find("late").State == "running" })
	if u := d.find("one"); u.Name != "" {
		t.Errorf("%+v", u)
	}
}

func TestNoAutoApply(t *testing.T) {
	f, _, o := realDaemon(t)
	o.NoAutoApply = true
	f.write("web.yaml", "image: nginx:1\n")
	d := begin(t, o)
	defer d.end()
	if len(d.Units()) > 0 {
		t.Fatal("applied")
	}
	d.apply("name: web\nimage: nginx:0\n")
	f.write("web.yaml", "image: nginx:1\n# changed\n")
	until(t, d, "pending", func() bool { return d.find("web").Pending != nil })
	if u := d.find("web"); u.Image != "nginx:0" {
		t.Errorf("%+v", u)
	}
}

func TestReload(t *testing.T) {
	f, _, o := realDaemon(t)
	other := folder{t, t.TempDir()}
	f.write("web.yaml", "image: nginx:1\n")
	other.write("db.yaml", "image: redis\n")
	o.Reload = func() (Options, error) {
		n := o
		n.Units, n.Bridge, n.Logging = other.dir, "other0", unit.Logging{MaxSize: 1 << 20, MaxFile: 2}
		return n, nil
	}
	d := begin(t, o)
	defer d.end()
	res, err := d.Reload(t.Context(), "tester")
	if err != nil || strings.Join(res.Applied, " ") != "units logging" || strings.Join(res.NeedsRestart, " ") != "network.bridge" {
		t.Fatalf("%+v %v", res, err)
	}
	until(t, d, "db runs", func() bool { return d.find("db").State == "running" })
	detail, err := d.Unit(t.Context(), "db")
	if err != nil || detail.Definition.Containers[0].Logging.MaxFile != 2 {
		t.Errorf("%+v %v", detail.Definition, err)
	}
	if u := d.find("web"); u.Name == "" {
		t.Error("a unit of the old folder is gone")
	}
}

func TestReloadWithoutConfiguration(t *testing.T) {
	_, _, o := realDaemon(t)
	d := begin(t, o)
	defer d.end()
	_, err := d.Reload(t.Context(), "tester")
	mustIs(t, err, ErrInvalid)
}
