package cdi

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
)

const gpu = `
cdiVersion: "0.6.0"
kind: vendor.com/gpu
containerEdits:
  env: [VENDOR=all]
  hooks:
    - {hookName: createContainer, path: /usr/bin/ctk, args: [ctk, hook]}
devices:
  - name: "0"
    containerEdits:
      deviceNodes: [{path: /dev/gpu0, permissions: rw, fileMode: 438, gid: 44}]
      env: [GPU=0]
  - name: "1"
    containerEdits:
      deviceNodes: [{path: /dev/gpu1, hostPath: /host/gpu1, type: c, major: 195, minor: 1}]
      mounts: [{hostPath: /usr/lib/libgpu.so, containerPath: /usr/lib/libgpu.so, options: [ro, nosuid, bind]}]
      additionalGids: [0, 44]
      env: [GPU=1]
`

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func blank() *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Env: []string{"PATH=/bin", "GPU=none"}}, Mounts: []specs.Mount{{Destination: "/proc"}, {Destination: "/usr/lib/libgpu.so/deeper"}}}
}

func TestApply(t *testing.T) {
	etc, run := t.TempDir(), t.TempDir()
	write(t, etc, "gpu.yaml", gpu)
	write(t, etc, "broken.json", "{")
	write(t, etc, "notes.txt", "not a file of ours")
	r := Registry{Dirs: []string{etc, run, filepath.Join(etc, "absent")}}
	spec := blank()
	nodes, err := r.Apply(spec, []string{"vendor.com/gpu=0", "vendor.com/gpu=1"})
	if err != nil {
		t.Fatal(err)
	}
	mode, gid := uint32(0o666), uint32(44)
	if want := []runtime.Device{{Source: "/dev/gpu0", Target: "/dev/gpu0", Permissions: "rw", Mode: &mode, GID: &gid},
		{Source: "/host/gpu1", Target: "/dev/gpu1", Permissions: "rwm"}}; !reflect.DeepEqual(nodes, want) {
		t.Errorf("nodes %+v", nodes)
	}
	if got := strings.Join(spec.Process.Env, " "); got != "PATH=/bin GPU=1 VENDOR=all" {
		t.Errorf("env %s", got)
	}
	if h := spec.Hooks.CreateContainer; len(h) != 1 || h[0].Path != "/usr/bin/ctk" {
		t.Errorf("hooks %+v: those of the file are for all its devices, once", h)
	}
	if m := spec.Mounts; len(m) != 3 || m[1].Destination != "/usr/lib/libgpu.so" || m[1].Type != "bind" {
		t.Errorf("mounts %+v", m)
	}
	if !reflect.DeepEqual(spec.Process.User.AdditionalGids, []uint32{44}) {
		t.Errorf("groups %v", spec.Process.User.AdditionalGids)
	}

	// What a driver wrote at run time counts more.
	write(t, run, "gpu.json", `{"cdiVersion": "1.0.0", "kind": "vendor.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["FROM=run"]}}]}`)
	spec = blank()
	if _, err := r.Apply(spec, []string{"vendor.com/gpu=0"}); err != nil || spec.Process.Env[2] != "FROM=run" {
		t.Errorf("%v, %v", spec.Process.Env, err)
	}
}

func TestApplyErrors(t *testing.T) {
	dir := t.TempDir()
	r := Registry{Dirs: []string{dir}}
	write(t, dir, "a.yaml", gpu)
	write(t, dir, "b.yaml", gpu)
	device := func(edits string) string {
		return `{"cdiVersion": "0.8.0", "kind": "v/rdt", "devices": [{"name": "a", "containerEdits": ` + edits + `}]}`
	}
	write(t, dir, "rdt.json", device(`{"intelRdt": {"closID": "x"}}`))
	for name, want := range map[string]string{
		"vendor.com/gpu=0": "both", "v/rdt=a": "intelRdt", "v/rdt=b": "describes it",
	} {
		if _, err := r.Apply(blank(), []string{name}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A file that others may write is none, and says why.
	file := filepath.Join(dir, "open.json")
	write(t, dir, "open.json", `{"cdiVersion": "0.8.0", "kind": "v/open", "devices": [{"name": "a", "containerEdits": {}}]}`)
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(blank(), []string{"v/open=a"}); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "others than its owner") {
		t.Errorf("a file that everybody may write: %v", err)
	}
	for _, edits := range []string{`{"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}`} {
		s, err := Parse([]byte(device(edits)), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Devices[0].Edits.apply(blank()); err == nil {
			t.Errorf("%s is applied", edits)
		}
	}
	for _, edits := range []string{
		`{"env": ["A"]}`, `{"deviceNodes": [{"path": "dev"}]}`, `{"deviceNodes": [{"path": "/dev/a", "type": "p"}]}`, `{"deviceNodes": [{"path": "/dev/a", "permissions": "x"}]}`,
		`{"mounts": [{"hostPath": "/a", "containerPath": "/"}]}`, `{"hooks": [{"hookName": "before", "path": "/a"}]}`, `{"hooks": [{"hookName": "prestart", "path": "a"}]}`, `{"more": 1}`,
	} {
		if _, err := Parse([]byte(device(edits)), true); err == nil {
			t.Errorf("%s is accepted", edits)
		}
	}
	for _, text := range []string{"", "kind: a/b", "cdiVersion: 2.0.0\nkind: a/b", "cdiVersion: 1.0.0\nkind: a", "[1]", "a: b: c"} {
		if _, err := Parse([]byte(text), false); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(gpu), false)
	f.Add([]byte(`{"cdiVersion": "1.0.0", "kind": "a/b", "devices": [{"name": "c"}]}`), true)
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		s, err := Parse(text, isJSON)
		if err != nil {
			return
		}
		for _, d := range s.Devices {
			spec := blank()
			nodes, err := d.Edits.apply(spec)
			if err != nil {
				continue
			}
			if b, err := json.Marshal(spec); err != nil || len(b) == 0 {
				t.Errorf("%s: %v", d.Name, err)
			}
			for _, n := range nodes {
				if !filepath.IsAbs(n.Source) || n.Target == "/" {
					t.Errorf("node %+v", n)
				}
			}
		}
	})
}
