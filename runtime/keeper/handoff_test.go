package keeper

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer"

	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// State files as keepers of earlier releases wrote them, in testdata/handoff, stay there:
// keeper-N.json are ours, libcontainer-VERSION.json those of libcontainer. A
// release that writes something new adds a file.

func TestOldStates(t *testing.T) {
	files, err := filepath.Glob("testdata/handoff/keeper-*.json")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			l := testLayout(t)
			if err := os.WriteFile(l.State("t.1-run.app"), raw, 0o600); err != nil {
				t.Fatal(err)
			}
			states, errs := readStates(l)
			if len(errs) > 0 || len(states) != 1 {
				t.Fatalf("%+v, %v", states, errs)
			}
			again, err := json.Marshal(&states[0])
			if err != nil {
				t.Fatal(err)
			}
			var was, is map[string]any
			if err := json.Unmarshal(raw, &was); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(again, &is); err != nil {
				t.Fatal(err)
			}
			for key, v := range was {
				if !reflect.DeepEqual(v, is[key]) {
					t.Errorf("%s was %v, is read as %v", key, v, is[key])
				}
			}
		})
	}
}

// TestForeignStates: what is no state of ours is named and not adopted, the rest is.
func TestForeignStates(t *testing.T) {
	l := testLayout(t)
	for name, text := range map[string]string{
		"good": `{"format":1,"id":"good","state":"running"}`, "later": `{"format":99,"id":"later"}`,
		"older": `{"format":0,"id":"older"}`, "other": `{"format":1,"id":"another"}`, "cut": `{"format":1,"id":"cu`, "empty": ``,
	} {
		if err := os.WriteFile(l.State(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	states, errs := readStates(l)
	if len(states) != 1 || states[0].ID != "good" || len(errs) != 5 {
		t.Errorf("%+v, %v", states, errs)
	}
	for _, err := range errs {
		if !strings.Contains(err.Error(), l.Containers()) {
			t.Errorf("%v does not name the file", err)
		}
	}
}

func testLayout(t *testing.T) bundle.Layout {
	t.Helper()
	l, err := bundle.New(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(l.Containers(), 0o700); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestOldLibcontainerStates: libcontainer reads what its earlier releases wrote.
func TestOldLibcontainerStates(t *testing.T) {
	files, err := filepath.Glob("testdata/handoff/libcontainer-*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			const id = "t.1-run.app"
			if err := os.Mkdir(filepath.Join(dir, id), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, id, "state.json"), raw, 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := libcontainer.Load(dir, id)
			if err != nil {
				t.Fatal(err)
			}
			conf := c.Config()
			if c.ID() != id || !strings.HasSuffix(conf.Rootfs, "/rootfs") || conf.Capabilities == nil || len(conf.Namespaces) < 5 || conf.Cgroups == nil {
				t.Errorf("%s is read as %+v", file, conf)
			}
		})
	}
}
