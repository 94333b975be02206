package integration

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
	"github.com/wherry-run/wherry/supervisor/api"
)

// liar is a registry in this process that can be made to answer wrongly.
func liar(t *testing.T) *imagetest.Registry {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r := imagetest.Start()
	t.Cleanup(r.Close)
	return r
}

// tools is a layer with a busybox, so that an image of a test's own can run something.
func tools(t *testing.T) imagetest.Layer {
	t.Helper()
	body, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("no busybox-static: scripts/setup test")
	}
	return imagetest.NewLayer(
		imagetest.Entry{Name: "bin/"},
		imagetest.Entry{Name: "bin/busybox", Body: string(body), Mode: 0o755},
		imagetest.Entry{Name: "bin/sh", Link: "busybox"},
		imagetest.Entry{Name: "bin/sleep", Link: "busybox"},
	)
}

func sleeper(ref string) string {
	return "image: " + ref + "\nnetwork: none\ncommand: [/bin/sleep, \"1000\"]\nstop_grace_period: 1s\n" +
		"restart_policy: {condition: any, delay: 50ms, max_delay: 200ms}\n"
}

// instance is the first instance of a unit, or an empty one.
func instance(h *harness.Host, unit string) (in api.Instance) {
	if u := h.Unit(unit); len(u.Instances) > 0 {
		in = u.Instances[0]
	}
	return in
}

// hasError waits until the last start of a unit failed with all the parts.
func hasError(t *testing.T, h *harness.Host, unit string, parts ...string) {
	t.Helper()
	var last string
	defer func() {
		if t.Failed() {
			t.Logf("the error was %q", last)
		}
	}()
	harness.Eventually(t, 30*time.Second, fmt.Sprintf("unit %s fails with %q", unit, parts), func() bool {
		last = instance(h, unit).Error
		for _, p := range parts {
			if !strings.Contains(last, p) {
				return false
			}
		}
		return last != ""
	})
}

// storeLeftovers lists what lies in an image store that has no image.
func storeLeftovers(h *harness.Host) (l []string) {
	for _, pattern := range []string{"/blobs/sha256/*", "/blobs/tmp/*", "/layers/tmp/*", "/layers/trash/*", "/layers/[0-9a-f]*[0-9a-f]", "/images/leases/*"} {
		found, _ := filepath.Glob(h.Root + pattern)
		for _, f := range found {
			if filepath.Base(f) != "empty" {
				l = append(l, f)
			}
		}
	}
	return l
}

// TestRegistryFaults: whatever a registry does wrong, the error says which
// image and which step, nothing visible is left, and the unit comes up by
// itself once the registry is right again.
func TestRegistryFaults(t *testing.T) {
	h := harness.StartHost(t)
	for _, c := range []struct {
		name  string
		hurt  func(*imagetest.Registry)
		heal  func(*imagetest.Registry)
		parts []string
	}{
		{"corrupt", func(r *imagetest.Registry) { r.Break(imagetest.Fault{Path: "/blobs/", Corrupt: true}) }, nil, []string{"pull", "digest"}},
		{"manifest", func(r *imagetest.Registry) {
			r.Break(imagetest.Fault{Path: "/manifests/sha256", Replace: func(b []byte) []byte { return bytes.Replace(b, []byte("application"), []byte("applicatiom"), 1) }})
			r.Break(imagetest.Fault{Path: "/manifests/", Replace: func([]byte) []byte { return []byte("<html>login please</html>") }})
		}, nil, []string{"pull", "resolve"}},
		{"cut", func(r *imagetest.Registry) { r.Break(imagetest.Fault{Path: "/blobs/", CutAfter: 100}) }, nil, []string{"pull", "connection"}},
		{"short", func(r *imagetest.Registry) { r.Break(imagetest.Fault{Path: "/blobs/", Truncate: 10}) }, nil, []string{"pull"}},
		{"sick", func(r *imagetest.Registry) { r.Break(imagetest.Fault{Status: 503}) }, nil, []string{"pull", "resolve", "503"}},
		{"locked", func(r *imagetest.Registry) { r.RequireLogin("someone", "secret", false) },
			func(r *imagetest.Registry) { r.RequireLogin("", "", false) }, []string{"pull", "resolve", "401"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := liar(t)
			ref := r.Host + "/" + c.name + ":1"
			if _, err := r.Push(c.name+":1", imagetest.Image{Layers: []imagetest.Layer{tools(t)}}); err != nil {
				t.Fatal(err)
			}
			c.hurt(r)
			h.Run("apply", "--no-wait", h.WriteUnit(c.name, sleeper(ref)))
			hasError(t, h, c.name, append(c.parts, c.name)...)
			if h.Unit(c.name).State == "running" {
				t.Error("it runs")
			}
			h.OK("stop", c.name)
			if c.name != "cut" && c.name != "short" { // their blobs are kept, to be resumed
				harness.Eventually(t, 10*time.Second, "nothing is left behind", func() bool { return len(storeLeftovers(h)) == 0 })
			}
			h.OK("start", "--no-wait", c.name)
			hasError(t, h, c.name, c.parts...)
			if c.heal != nil {
				c.heal(r)
			} else {
				r.Mend()
			}
			h.Running(c.name, 1)
			h.OK("rm", "-f", c.name)
			h.OK("rmi", "--yes", ref)
			harness.Eventually(t, 10*time.Second, "the image store is empty", func() bool { return len(storeLeftovers(h)) == 0 })
		})
	}
}

// TestPullResumes: a connection that breaks in the middle of a blob is taken up
// again within one pull.
func TestPullResumes(t *testing.T) {
	r := liar(t)
	h := harness.StartHost(t)
	if _, err := r.Push("cut:1", imagetest.Image{Layers: []imagetest.Layer{tools(t)}}); err != nil {
		t.Fatal(err)
	}
	r.Break(imagetest.Fault{Path: "/blobs/", CutAfter: 300 << 10, Times: 2})
	h.OK("pull", r.Host+"/cut:1")
	if n := len(r.Requests("GET /v2/cut/blobs/")); n < 3 {
		t.Errorf("%d requests of blobs: nothing was cut", n)
	}
	h.OK("run", "--rm", "--net", "none", r.Host+"/cut:1", "/bin/sh", "-c", "exit 0")
}

// TestOtherPlatform: an image for another machine is refused with what there is,
// and taken once there is one for ours.
func TestOtherPlatform(t *testing.T) {
	r := liar(t)
	h := harness.StartHost(t)
	other := imagetest.Image{Layers: []imagetest.Layer{tools(t)}, Platform: v1.Platform{OS: "linux", Architecture: "s390x"}}
	if _, err := r.PushIndex("far:1", other); err != nil {
		t.Fatal(err)
	}
	h.Run("apply", "--no-wait", h.WriteUnit("far", sleeper(r.Host+"/far:1")))
	hasError(t, h, "far", "pull", "resolve", "far:1", "linux/amd64", "linux/s390x")
	h.Fails(1, []string{"linux/s390x"}, "pull", r.Host+"/far:1")
	if _, err := r.PushIndex("far:1", other, imagetest.Image{Layers: []imagetest.Layer{tools(t)}}); err != nil {
		t.Fatal(err)
	}
	h.Running("far", 1)
}

// TestHostileLayers: no archive reaches anything outside its layer, neither
// while it is unpacked nor through what it left there when it runs.
func TestHostileLayers(t *testing.T) {
	r := liar(t)
	h := harness.StartHost(t)
	canary := filepath.Join(h.Dir, "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30) + strings.TrimPrefix(h.Dir, "/")
	type e = imagetest.Entry
	for _, c := range []struct {
		name    string
		entries []e
		refused string // part of the error; empty: a safe result
		script  string // what shows it
	}{
		{"dotdot", []e{{Name: up + "/canary", Body: "evil"}}, `name contains ".."`, ""},
		{"absolute", []e{{Name: canary, Body: "evil"}}, "", "[ \"$(/bin/busybox cat " + canary + ")\" = evil ]"},
		{"linkwrite", []e{{Name: "out", Link: h.Dir}, {Name: "out/canary", Body: "evil"}}, "", ""},
		{"linkup", []e{{Name: "out", Link: up}, {Name: "out/canary", Body: "evil"}}, "", ""},
		{"linkfile", []e{{Name: "out", Link: canary}, {Name: "out", Body: "evil"}}, "", "[ \"$(/bin/busybox cat /out)\" = evil ]"},
		{"hardlink", []e{{Name: "pw", Link: canary, Type: tar.TypeLink}}, `entry "pw"`, ""},
		{"hardlinkup", []e{{Name: "pw", Link: up + "/canary", Type: tar.TypeLink}}, `entry "pw"`, ""},
		{"linklink", []e{{Name: "out", Link: h.Dir}, {Name: "pw", Link: "out/canary", Type: tar.TypeLink}}, `entry "pw"`, ""},
		{"whiteout", []e{{Name: "out", Link: h.Dir}, {Name: "out/.wh.canary"}}, "", ""},
		{"whiteoutup", []e{{Name: ".wh..."}}, "whiteout of nothing", ""},
		{"fifo", []e{{Name: "dir", Type: tar.TypeFifo}, {Name: "dir/file", Body: "x"}}, "dir is not a folder", ""},
		{"device", []e{{Name: "mem", Type: tar.TypeChar, Major: 1, Minor: 1, Mode: 0o666}, {Name: "disk", Type: tar.TypeBlock, Major: 8, Minor: 0, Mode: 0o666}},
			"", "! /bin/busybox head -c1 /mem && ! /bin/busybox head -c1 /disk"},
		{"setuid", []e{{Name: "su", Body: "x", Mode: 0o4755}}, "", "[ -u /su ]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ref := r.Host + "/" + c.name + ":1"
			if _, err := r.Push(c.name+":1", imagetest.Image{Layers: []imagetest.Layer{tools(t), imagetest.NewLayer(c.entries...)}}); err != nil {
				t.Fatal(err)
			}
			res := h.Run("run", "--rm", "--net", "none", ref, "/bin/sh", "-c", c.script)
			switch {
			case c.refused == "" && res.Code != 0:
				t.Errorf("exit code %d:\n%s%s", res.Code, res.Stdout, res.Stderr)
			case c.refused != "" && (res.Code != 125 || !strings.Contains(res.Stderr, c.name) || !strings.Contains(res.Stderr, "unpack") || !strings.Contains(res.Stderr, c.refused)):
				t.Errorf("exit code %d, want 125 and the step unpack, the image and %q in\n%s", res.Code, c.refused, res.Stderr)
			}
			if b, err := os.ReadFile(canary); err != nil || string(b) != "untouched" {
				t.Fatalf("the file outside is %q, %v", b, err)
			}
			if info, _ := os.Stat(canary); info.Mode() != 0o600 {
				t.Errorf("the file outside has mode %v", info.Mode())
			}
			if c.refused != "" {
				if l, _ := filepath.Glob(h.Root + "/layers/tmp/*"); len(l) != 0 {
					t.Errorf("left behind: %q", l)
				}
			}
		})
	}
}

// TestSparseClaim: an archive of a few bytes that says it holds 10 GB is refused
// on a disk without room for it, at once.
func TestSparseClaim(t *testing.T) {
	r := liar(t)
	sparse := imagetest.Layer{Tar: sparseFile("huge", 10<<30), Compression: imagetest.Gzip}
	if _, err := r.Push("huge:1", imagetest.Image{Layers: []imagetest.Layer{tools(t), sparse}}); err != nil {
		t.Fatal(err)
	}
	small := harness.NewHost(t)
	small.SmallDisk(24 << 20)
	small.Start()
	small.Fails(1, []string{"huge:1", "unpack", "space"}, "pull", r.Host+"/huge:1")
	if l, _ := filepath.Glob(small.Root + "/layers/tmp/*"); len(l) != 0 {
		t.Errorf("left behind: %q", l)
	}
}

// sparseFile is an archive with one sparse file of nothing (GNU's old format,
// which archive/tar reads but does not write).
func sparseFile(name string, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00        S")
	copy(h[257:], "ustar  \x00")
	octal := func(at int, n int64) { copy(h[at:], fmt.Sprintf("%011o\x00", n)) }
	large := func(at int, n int64) { // base 256: more than octal can say
		h[at] = 0x80
		for i := range 8 {
			h[at+11-i] = byte(n >> (8 * i))
		}
	}
	large(386, size) // one piece, at the end, of no bytes
	octal(398, 0)
	large(483, size)
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(h, make([]byte, 1024)...)
}
