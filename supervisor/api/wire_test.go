package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

var update = flag.Bool("update", false, "write testdata")

var at = time.Date(2026, 11, 21, 18, 30, 0, 123456789, time.UTC)

// messages are one of each, with every field set.
func messages() map[string]any {
	exit := &api.Exit{Code: 1, Signal: "SIGKILL", OOM: true, Unknown: true, Cause: "limit 64 MiB", At: at}
	u := api.Unit{
		Name: "web", Kind: "service", State: "backoff", Intent: "running", Revision: 3, Image: "nginx:1.27",
		Command: []string{"nginx"}, Network: "bridge", Replicas: 2, Running: 1, Restarts: 4, CreatedAt: at, Since: at, Reason: "exited 1",
		Ports:  []unit.Port{{HostIP: "127.0.0.1", HostPort: 80, Port: 8080, Protocol: "tcp"}},
		Labels: map[string]string{"team": "shop"}, Pending: &api.Pending{Source: "web.yaml", Reason: "rolled back"},
		Instances: []api.Instance{{Name: "web.1", State: "backoff", Run: "web.1-7f3k", Revision: 3, Pid: 4001, Address: "10.88.0.2",
			StartedAt: at, EndedAt: at, Restarts: 4, Attempt: 2, NextTry: at, Reason: "exited 1", Error: "network: port 80", Exit: exit,
			LogPath: "/var/lib/wherry/logs/web/web.1/app.log", Cgroup: "/wherry/web.1-7f3k/app",
			Containers: []api.Container{{Name: "app", State: "backoff", Image: "nginx:1.27", Digest: "sha256:abc", Essential: true, Pid: 4001, StartedAt: at, EndedAt: at,
				Restarts: 2, Attempt: 1, NextTry: at, Reason: "exited 1", Exit: exit, LogPath: "/var/lib/wherry/logs/web/web.1/app.log", Cgroup: "/wherry/web.1-7f3k/app"}}}},
	}
	disk := api.Disk{Path: "/var/lib/wherry", Total: 10, Free: 5, Reserve: 1, Used: 50.5, Inodes: 9, InodesFree: 8, Pressure: "too full"}
	operation := api.Operation{ID: "pull-7f3k", Kind: "pull", Object: "nginx", Unit: "web", Instance: "web.1", By: "root", StartedAt: at,
		Step: "fetch", Done: 1, Total: 4, Rate: 2, Left: time.Second}
	revision := api.Revision{Number: 3, AppliedAt: at, By: "root (uid 0, pid 1)", Source: "web.yaml", Digest: "sha256:abc", Digests: map[string]string{"app": "sha256:abc"}}
	return map[string]any{
		"info": api.Info{Version: "1.2.3", Pid: 1, KeeperPid: 2, StartedAt: at, Root: "/var/lib/wherry", RunDir: "/run/wherry",
			Cgroup: "/wherry", CgroupMode: "unified", Bridge: "wherry0", Subnet: "10.88.0.0/16", Warnings: []string{"no swap limit"},
			Registries: []api.RateLimit{testLimit()}, Disk: &disk, LastGC: &api.LastGC{At: at, Images: 3, Freed: 4}},
		"unit": u,
		"unit_detail": api.UnitDetail{Unit: u, Source: "web.yaml", Text: "image: nginx\n", Revisions: []api.Revision{revision}, Digest: "sha256:abc",
			Digests: map[string]string{"app": "sha256:abc"}, Stale: true,
			Definition: unit.Unit{Kind: unit.Service, Name: "web", Replicas: 2, Network: "bridge", Restart: unit.DefaultRestart(),
				Containers: []unit.Container{{Name: "app", Image: "nginx:1.27", PullPolicy: "missing", StopGracePeriod: unit.Duration(10 * time.Second),
					Init: true, Limits: cgroup.Limits{Memory: 1 << 20}, Logging: unit.Logging{MaxSize: 1 << 20, MaxFile: 3}}}},
			Stats: map[string]cgroup.Stats{"web.1": {MemoryCurrent: 2, MemoryWorking: 1}}},
		"apply_request": api.ApplyRequest{Files: []api.File{{Source: "/a/web.yaml", Dir: "/a", Text: "image: x\n", Files: map[string]string{"a.env": "A=b"}}}, DryRun: true, Again: true},
		"apply_result": api.ApplyResult{Units: []api.UnitChange{{Unit: "web", Change: "update", Revision: 4, Fields: []unit.Change{{Path: "replicas", Old: "1", New: "2"}}}},
			Warnings: []string{"depends on a unit that is not there"}, Actions: []plan.Action{{Kind: plan.Start, Unit: "web", Instance: "web.2", Run: "r", Revision: 4, Reason: "it should run"}}},
		"act_request":  api.ActRequest{Units: []string{"web"}, All: true, Glob: true, Force: true, NoWait: true, Timeout: unit.Duration(90 * time.Second)},
		"act_result":   api.ActResult{Units: []string{"web"}},
		"run_request":  api.RunRequest{Unit: unit.Unit{Name: "x"}, Attach: true, Remove: true},
		"exec_request": api.ExecRequest{Target: "web.1", Args: []string{"ls"}, Env: []string{"A=b"}, User: "nobody", Cwd: "/"},
		"log_line":     api.LogLine{Unit: "web", Instance: "web.1", Container: "app", Time: at, Stream: "stderr", Partial: true, Text: []byte("oops\xff")},
		"exit_record": api.ExitRecord{Unit: "web", Instance: "web.1", Run: "web.1-7f3k", Container: "app", Revision: 2, StartedAt: at, At: at, Stopped: true, Exit: exit,
			Step: "rootfs", Error: "no such file", Memory: &api.MemoryUse{Peak: 3, Limit: 4}, Pressure: &cgroup.Pressure{Host: true},
			LastOOM: &api.OOM{At: at, Kills: 2, Victim: &api.Task{Pid: 42, Comm: "java", RSS: 5}, Tasks: []api.Task{{Pid: 42, Comm: "java", RSS: 5}}},
			Output:  []api.OutputLine{{Time: at, Stream: "stderr", Text: "no"}}, OutputCut: true},
		"event":         api.Event{Seq: 7, Time: at, Type: "exit", Unit: "web", Instance: "web.1", Run: "web.1-7f3k", Container: "app", Step: "network", Message: "exited 1", Exit: exit, By: "root", Fields: map[string]any{"port": "80"}},
		"reload_result": api.ReloadResult{Applied: []string{"registries"}, NeedsRestart: []string{"root"}},
		"wait_request":  api.WaitRequest{Units: []string{"web"}, State: "running", Timeout: unit.Duration(time.Minute)},
		"vitals": api.Vitals{Daemon: api.ProcessVitals{Pid: 1, Goroutines: 2, Heap: 3, Stacks: "goroutine 1"},
			Keeper: &api.ProcessVitals{Pid: 4, Goroutines: 5, Heap: 6}},
		"wait_result":    api.WaitResult{Units: []api.Waited{{Name: "web", Exit: exit}}},
		"pull_request":   api.PullRequest{Ref: "nginx", Policy: "always", Platform: "linux/arm64"},
		"pull_message":   api.PullMessage{Progress: &api.Progress{Image: "nginx", Layer: "sha256:abc", Step: "fetch", Done: 1, Total: 2, Rate: 3, Left: time.Second}},
		"image":          testImage(),
		"operation":      operation,
		"abort":          api.Abort{Operation: operation, GoesOn: true},
		"pull_begun":     api.PullMessage{Operation: "pull-7f3k"},
		"load_message":   api.LoadMessage{Images: []api.Image{testImage()}},
		"save_request":   api.SaveRequest{Refs: []string{"nginx"}, Format: "oci-archive", Folder: "/a"},
		"gc_request":     api.GCRequest{All: true, DryRun: true},
		"gc_result":      api.GCResult{Images: []string{"sha256:abc"}, Blobs: []string{"sha256:123"}, Deleted: []string{"sha256:def"}, Freed: 3, Disk: disk},
		"explanation":    api.Explanation{Image: "nginx", Digest: "sha256:abc", Stays: true, Reasons: []string{"web uses it"}, Size: 2, Frees: 1, LastUse: at},
		"verify_request": api.VerifyRequest{Refs: []string{"nginx"}, Repair: true},
		"verify_message": api.VerifyMessage{Image: &api.Verification{Image: "nginx", Digest: "sha256:abc", Layers: 1, Files: 2, Bytes: 3,
			Damage: []api.Damage{{Layer: "sha256:1", Blob: "sha256:2", Path: "/etc/x", What: "missing", Repaired: true}}}},
		"disk_usage": api.DiskUsage{Disk: disk, Images: []api.ImageUsage{{Digest: "sha256:abc", Names: []string{"nginx"}, Size: 2, Unique: 1, Units: []string{"web"}}},
			Units: []api.UnitUsage{{Unit: "web", Images: []string{"sha256:abc"}, ImageSize: 2, Writable: 1, Volumes: 3, Logs: 4,
				Containers: []api.ContainerUsage{{Instance: "web.1", Run: "web.1-7f3k", Image: "sha256:abc", Ended: true, Writable: 1, Volumes: 3}}}},
			Blobs: 1, Layers: 2, Trash: 3, Partial: 4, Volumes: 5},
		"image_removal":  api.ImageRemoval{Untagged: []string{"nginx"}, Deleted: []string{"sha256:abc"}, Freed: 3},
		"error":          api.Error{Message: "no such unit: web", Hint: "list shows them", Code: api.CodeNotFound},
		"control_create": api.Control{Created: "x"},
		"control_exit":   api.Control{Exit: exit},
		"control_error":  api.Control{Error: &api.Error{Message: "no", Code: api.CodeInternal}},
	}
}

func testLimit() api.RateLimit {
	return api.RateLimit{Registry: "docker.io", Limit: 100, Remaining: 63, Window: 6 * time.Hour, At: at, Until: at}
}

func testImage() api.Image {
	return api.Image{Names: []string{"nginx:1.27"}, Digest: "sha256:abc", ConfigID: "sha256:def", Platform: "linux/amd64", Size: 3, Created: at, PulledAt: at,
		Config: api.ImageConfig{Entrypoint: []string{"/e"}, Cmd: []string{"c"}, Env: []string{"A=b"}, User: "u", WorkingDir: "/w", StopSignal: "SIGQUIT",
			Volumes: []string{"/v"}, ExposedPorts: []string{"80/tcp"}, Labels: map[string]string{"a": "b"}},
		Layers: []api.ImageLayer{{Digest: "sha256:1", DiffID: "sha256:2", Size: 3}}}
}

// TestWire holds every message to its form in testdata: a client of an older or
// newer version reads it.
func TestWire(t *testing.T) {
	for name, m := range messages() {
		got, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			t.Fatal(name, err)
		}
		got = append(got, '\n')
		file := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s has changed on the wire:\n%s", name, got)
		}
		back := reflect.New(reflect.TypeOf(m))
		dec := json.NewDecoder(bytes.NewReader(want))
		dec.DisallowUnknownFields()
		if err := dec.Decode(back.Interface()); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(back.Elem().Interface(), m) {
			t.Errorf("%s: read back as %+v", name, back.Elem().Interface())
		}
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	for _, p := range []string{"", "hello", string(make([]byte, api.MaxFrame))} {
		if err := api.WriteFrame(&b, api.FrameStderr, []byte(p)); err != nil {
			t.Fatal(err)
		}
		if p == "hello" && !bytes.HasSuffix(b.Bytes(), []byte("\x02\x00\x00\x00\x05hello")) {
			t.Errorf("frame %q", b.Bytes())
		}
	}
	buf := make([]byte, 3)
	for _, n := range []int{0, 5, api.MaxFrame} {
		typ, p, err := api.ReadFrame(&b, buf)
		if err != nil || typ != api.FrameStderr || len(p) != n {
			t.Fatalf("%d %d %v", typ, len(p), err)
		}
	}
	for text, want := range map[string]error{"": io.EOF, "\x01\x00": io.ErrUnexpectedEOF, "\x01\x00\x00\x00\x05hel": io.ErrUnexpectedEOF} {
		if _, _, err := api.ReadFrame(bytes.NewBufferString(text), nil); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
	if _, _, err := api.ReadFrame(bytes.NewBufferString("\x01\xff\xff\xff\xff"), nil); err == nil {
		t.Error("a frame without bounds is read")
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02hi"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			typ, p, err := api.ReadFrame(r, nil)
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := api.WriteFrame(&again, typ, p); err != nil || !bytes.Contains(b, again.Bytes()) {
				t.Fatalf("%d %q, %v", typ, p, err)
			}
		}
	})
}

func TestErrorsMatchTheirCode(t *testing.T) {
	err := error(&api.Error{Code: api.CodeNotFound, Message: "no"})
	if !errors.Is(err, api.ErrNoSuchUnit) || errors.Is(err, api.ErrExists) {
		t.Error("not_found is not ErrNoSuchUnit alone")
	}
	if errors.Is(&api.Error{Code: api.CodeInternal}, nil) {
		t.Error("internal matches nothing")
	}
}
