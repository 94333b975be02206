package unit

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the meanings and errors found into testdata")

// golden is one file of testdata: a unit file, the files it refers to, and
// what becomes of it: "meaning" (JSON, what differs from the defaults), "error"
// and "warnings".
type golden struct {
	archive *txtar.Archive
	path    string
}

func (g golden) get(name string) string {
	for _, f := range g.archive.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

func (g golden) options() Options {
	return Options{
		Dir: "/srv/units",
		ReadFile: func(name string) ([]byte, error) {
			for _, f := range g.archive.Files[1:] {
				if f.Name == name {
					return f.Data, nil
				}
			}
			return nil, fs.ErrNotExist
		},
	}
}

func TestParse(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			g := golden{archive, path}
			got := map[string]string{}
			u, warns, err := Parse(archive.Files[0].Name, archive.Files[0].Data, g.options())
			if err != nil {
				got["error"] = err.Error() + "\n"
			} else {
				got["meaning"] = short(t, u)
			}
			for _, w := range warns {
				got["warnings"] += w.String() + "\n"
			}
			if *update {
				g.write(t, got)
				return
			}
			for _, name := range []string{"meaning", "error", "warnings"} {
				if want := g.get(name); got[name] != want {
					t.Errorf("%s: got\n%swant\n%s", name, got[name], want)
				}
			}
		})
	}
}

// short is a unit's JSON without what every unit has by default.
func short(t *testing.T, u Unit) string {
	plain := newUnit(Defaults{})
	if u.Restart.Condition == plain.Restart.Condition && Equal(Unit{Restart: u.Restart}, Unit{Restart: plain.Restart}) {
		u.Restart = RestartPolicy{}
	}
	c := &u.Containers[0]
	if c.Logging == plain.Containers[0].Logging {
		c.Logging = Logging{}
	}
	b, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	app := m["containers"].([]any)[0].(map[string]any)
	if u.Restart.Condition == "" {
		delete(m, "restart_policy")
	}
	if c.Logging == (Logging{}) {
		delete(app, "logging")
	}
	for key, value := range map[string]any{"kind": "service", "network": "bridge", "replicas": 1.0} {
		if m[key] == value {
			delete(m, key)
		}
	}
	for key, value := range map[string]any{"name": "app", "pull_policy": "missing", "init": true, "stop_grace_period": "10s"} {
		if app[key] == value {
			delete(app, key)
		}
	}
	b, err = json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func (g golden) write(t *testing.T, got map[string]string) {
	out := &txtar.Archive{Comment: g.archive.Comment}
	for _, f := range g.archive.Files {
		if f.Name != "meaning" && f.Name != "error" && f.Name != "warnings" {
			out.Files = append(out.Files, f)
		}
	}
	for _, name := range []string{"meaning", "error", "warnings"} {
		if got[name] != "" {
			out.Files = append(out.Files, txtar.File{Name: name, Data: []byte(got[name])})
		}
	}
	if err := os.WriteFile(g.path, txtar.Format(out), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsAreOne(t *testing.T) {
	_, _, err := Parse("web.yaml", []byte("image: nginx\ncomand: x\nports: 80\n"), Options{})
	var all Errors
	if !errors.As(err, &all) || len(all) != 2 {
		t.Fatalf("got %v", err)
	}
	var one *Error
	if !errors.As(err, &one) || one.Line != 2 || one.Column != 1 || one.Key != "comand" || one.Hint != `did you mean "command"?` {
		t.Errorf("got %+v", one)
	}
}
