package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is built into the golden files")

// TestGolden builds the input of each file. A file holds
//
//	image, container   the input, as JSON
//	show               the parts of the result to compare, one path a line; left out: all
//	want               the result as JSON, or
//	error              the exact error
//
// Seccomp is not shown: seccomp_test.go has its tests.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			section := func(name string) []byte {
				for _, f := range a.Files {
					if f.Name == name {
						return f.Data
					}
				}
				return nil
			}
			var img Image
			var c Container
			decode(t, section("image"), &img)
			decode(t, section("container"), &c)
			name, got := build(t, img, c, strings.Fields(string(section("show"))))
			if *update {
				a.Files = append(a.Files[:len(a.Files):len(a.Files)], txtar.File{Name: name, Data: got})
				for i, f := range a.Files[:len(a.Files)-1] {
					if f.Name == "want" || f.Name == "error" {
						a.Files = append(a.Files[:i], a.Files[i+1:]...)
						break
					}
				}
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := section(name); !bytes.Equal(got, want) {
				t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
			}
		})
	}
}

func decode(t *testing.T, b []byte, v any) {
	t.Helper()
	if len(b) == 0 {
		return
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
}

func build(t *testing.T, img Image, c Container, show []string) (section string, text []byte) {
	t.Helper()
	res, err := Build(img, c)
	if err != nil {
		return "error", []byte(err.Error() + "\n")
	}
	if (res.Spec.Linux.Seccomp == nil) != (c.Seccomp == Unconfined || c.Privileged) {
		t.Error("no seccomp")
	}
	res.Spec.Linux.Seccomp = nil
	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	if len(show) == 0 {
		return "want", indent(t, b)
	}
	var out bytes.Buffer
	for _, p := range show {
		var tree any
		json.Unmarshal(b, &tree)
		for key := range strings.SplitSeq(p, ".") {
			m, _ := tree.(map[string]any)
			tree = m[key]
		}
		part, _ := json.Marshal(tree)
		fmt.Fprintf(&out, "%s: %s", p, indent(t, part))
	}
	return "want", out.Bytes()
}

// indent gives short arrays and objects one line each.
func indent(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var put func(raw json.RawMessage, pad string)
	put = func(raw json.RawMessage, pad string) {
		if len(raw) < 160 || (raw[0] != '{' && raw[0] != '[') {
			out.Write(raw)
			return
		}
		var list []json.RawMessage
		var keys []string
		if raw[0] == '[' {
			json.Unmarshal(raw, &list)
		} else {
			d := json.NewDecoder(bytes.NewReader(raw))
			d.Token()
			for d.More() {
				key, _ := d.Token()
				var v json.RawMessage
				if err := d.Decode(&v); err != nil {
					t.Fatal(err)
				}
				keys, list = append(keys, fmt.Sprintf("%q: ", key)), append(list, v)
			}
		}
		out.WriteByte(raw[0])
		for i, v := range list {
			out.WriteString("\n" + pad + "  ")
			if keys != nil {
				out.WriteString(keys[i])
			}
			put(v, pad+"  ")
			if i < len(list)-1 {
				out.WriteByte(',')
			}
		}
		out.WriteString("\n" + pad)
		out.WriteByte(raw[len(raw)-1])
	}
	put(b, "")
	out.WriteByte('\n')
	return out.Bytes()
}

func TestBuildIsPure(t *testing.T) {
	img := Image{Cmd: []string{"/bin/true"}, Env: []string{"A=1"}}
	c := Container{Network: Private, CapAdd: []string{"ALL"}, Env: []string{"A=2"}}
	first, err := Build(img, c)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(first)
	// Whoever changes a result changes nobody else's.
	first.Spec.Process.Capabilities.Bounding[0] = "X"
	first.Spec.Linux.Seccomp.Syscalls[0].Names[0] = "X"
	first.Spec.Linux.MaskedPaths[0] = "X"
	first.Spec.Mounts[0].Options[0] = "X"
	second, err := Build(img, c)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := json.Marshal(second); !bytes.Equal(got, want) {
		t.Error("the second result differs from the first")
	}
}

func TestMaskedCPUs(t *testing.T) {
	res, err := Build(Image{Cmd: []string{"x"}}, Container{Network: None, Machine: Machine{CPUs: 2}})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(res.Spec.Linux.MaskedPaths, " ")
	if !strings.Contains(text, "/cpu0/thermal_throttle") || !strings.Contains(text, "/cpu1/thermal_throttle") || strings.Contains(text, "/cpu2/") {
		t.Errorf("got %s", text)
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]string{
		"SIGTERM": "SIGTERM", "TERM": "SIGTERM", "term": "SIGTERM", "15": "SIGTERM", "9": "SIGKILL", "SIGQUIT": "SIGQUIT",
		"SIGRTMIN": "34", "SIGRTMIN+3": "37", "rtmax-1": "63", "37": "37", "64": "64",
		"SIGTREM":     `"SIGTREM": no such signal; did you mean "SIGTERM"?`,
		"HUPP":        `"HUPP": no such signal; did you mean "SIGHUP"?`,
		"nonsense":    `"nonsense": no such signal`,
		"0":           `"0": a signal's number is from 1 to 64`,
		"65":          `"65": a signal's number is from 1 to 64`,
		"-1":          `"-1": a signal's number is from 1 to 64`,
		"SIGRTMIN+31": `"SIGRTMIN+31": no such signal`,
		"SIGRTMAX+1":  `"SIGRTMAX+1": no such signal`,
		"SIGRTMIN3":   `"SIGRTMIN3": no such signal`,
	} {
		got, err := ParseSignal(in)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func FuzzBuild(f *testing.F) {
	f.Add("/bin/sh", "A=1", "/work", "1000:1000", "SIGTERM", "/data", "NET_ADMIN", "/mnt")
	f.Fuzz(func(t *testing.T, arg, env, dir, user, signal, volume, capability, target string) {
		img := Image{Cmd: []string{arg}, Env: []string{env}, WorkingDir: dir, User: user, StopSignal: signal, Volumes: []string{volume}}
		c := Container{Network: None, Env: []string{env}, CapAdd: []string{capability}}
		c.Mounts = append(c.Mounts, kernelMounts(Container{})[1])
		c.Mounts[0].Destination = target
		res, err := Build(img, c)
		if err != nil {
			return
		}
		if !filepath.IsAbs(res.Spec.Process.Cwd) || res.Spec.Process.Args[0] == "" {
			t.Errorf("built %+v", res.Spec.Process)
		}
		for _, m := range res.Spec.Mounts {
			if m.Destination == "/" || !filepath.IsAbs(m.Destination) {
				t.Errorf("mounts over %q", m.Destination)
			}
		}
	})
}
