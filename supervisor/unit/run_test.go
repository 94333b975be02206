package unit

import (
	"encoding/json"
	"io/fs"
	"strings"
	"testing"
)

func TestFromRun(t *testing.T) {
	got, err := FromRun(RunFlags{
		Name: "web", Image: "localhost:5000/nginx:1", Command: []string{"nginx", "-g", "daemon off;"}, Entrypoint: "/run me.sh",
		Env: []string{"A=1", "B=x=y", "HOME", "UNSET"}, EnvFiles: []string{"f.env"},
		Volumes: []string{"./data:/data", "cache:/cache:ro", "/anon"}, Tmpfs: []string{"/tmp:size=64m,mode=1777,noexec", "/run"},
		Ports: []string{"127.0.0.1:18080:80", "53/udp"}, Labels: []string{"a=1", "b"},
		Restart: "on-failure:3", Network: "bridge", WorkingDir: "/srv", User: "1000:1000", Memory: "512m", CPUs: "1.5", PidsLimit: "100",
		StopSignal: "QUIT", StopTimeout: "30", Pull: "never", NoInit: true, ReadOnly: true,
		CapAdd: []string{"SYS_TIME", "cap_net_admin", "NET_ADMIN"}, CapDrop: []string{"all"}, LogOpts: []string{"max-size=1m", "max-file=2"}, StorageOpts: []string{"size=2g"},
		Dir:      "/home/me",
		Getenv:   func(name string) (string, bool) { return "/home/me", name == "HOME" },
		ReadFile: func(string) ([]byte, error) { return []byte("A=file\nC=file\n"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	// The same, written as a file, is the same unit.
	file, _, err := Parse("web.yaml", []byte(`
image: localhost:5000/nginx:1
command: [nginx, -g, "daemon off;"]
entrypoint: [/run me.sh]
environment: {A: 1, B: x=y, C: file, HOME: /home/me}
volumes: [./data:/data, cache:/cache:ro, /anon, {type: tmpfs, target: /tmp, size: 64MiB, mode: 1777}, {type: tmpfs, target: /run}]
ports: [127.0.0.1:18080:80, 53/udp]
labels: {a: 1, b: ""}
restart: on-failure:3
working_dir: /srv
user: 1000:1000
resources: {limits: {memory: 512MiB, cpus: 1.5, pids: 100}}
stop_signal: SIGQUIT
stop_grace_period: 30s
pull_policy: never
init: false
read_only: true
cap_add: [NET_ADMIN, SYS_TIME]
cap_drop: [ALL]
logging: {max_size: 1MiB, max_file: 2}
storage_opt: {size: 2GiB}
`), Options{Dir: "/home/me"})
	if err != nil {
		t.Fatal(err)
	}
	if !Equal(got, file) {
		t.Errorf("flags and file differ: %+v", Diff(file, got))
	}
}

func TestFromRunDefaults(t *testing.T) {
	u, err := FromRun(RunFlags{Image: "busybox"})
	if err != nil {
		t.Fatal(err)
	}
	c := u.Containers[0]
	if u.Name != "" || u.Restart.Condition != Never || u.Network != "bridge" || u.Replicas != 1 || !c.Init || c.Command != nil || c.Entrypoint != nil {
		t.Errorf("got %+v", u)
	}
	always, err := FromRun(RunFlags{Image: "busybox", Restart: "always", Memory: "8388608", PidsLimit: "-1"})
	if err != nil || always.Restart.Condition != Any || always.Containers[0].Limits.Memory != 8<<20 || always.Containers[0].Limits.Pids != 0 {
		t.Errorf("got %+v, %v", always, err)
	}
}

func TestFromRunErrors(t *testing.T) {
	_, err := FromRun(RunFlags{
		Name: "Web", Image: "", Restart: "sometimes", Network: "mine", WorkingDir: "rel", User: "a b", Memory: "512", CPUs: "5000",
		PidsLimit: "x", StopSignal: "NOPE", StopTimeout: "1y", Pull: "maybe", Ports: []string{"80:80:80:80", "1:1", "1:2"},
		Volumes: []string{"./x:/x", "/y", "/y"}, Tmpfs: []string{"/t:size=1", "/t:huge"}, CapAdd: []string{"FOO"}, Labels: []string{"=x"},
		Env: []string{"A", "=b"}, EnvFiles: []string{"gone"}, LogOpts: []string{"tag=x", "max-file=0"}, StorageOpts: []string{"size=0", "inodes=5"},
		ReadFile: func(string) ([]byte, error) { return nil, fs.ErrNotExist },
	})
	if err == nil {
		t.Fatal("no error")
	}
	want := strings.TrimPrefix(`
--name: "Web" is not a name, it begins with a-z or 0-9 and goes on with letters, digits, _ . and -
image: "" is not an image, write it like nginx:1.27 or host/path:tag
--restart: "sometimes" is unknown, it is one of always, unless-stopped, on-failure, no
--network: "mine": networks by name are not supported yet, it is bridge, host or none
--workdir: "rel" is not an absolute path, it begins with /
--user: "a b" is not a user, write it like 1000, www or 1000:1000
--stop-signal: unknown signal "NOPE", names are like SIGTERM
--stop-timeout: "1y" is not a duration, write it like 1m30s; the units are ms, s, m and h
--pull: "maybe" is unknown, it is missing, always, never or newer
--memory: 512B is too little, the least is 6MiB
--cpus: 5000 is out of range, it goes from 0.01 to 4096
--pids-limit: "x" is not a number of processes
--log-opt: unknown option "tag", they are max-size, max-file, mode and max-buffer-size
--log-opt max-file: "0" is not a number of files, it goes from 1 to 1000
--storage-opt size: 0B is too little, the least is 1MiB
--storage-opt: unknown option "inodes=5", write size=10GiB
--publish: "80:80:80:80": an IPv6 address: not supported yet
--publish: host port 1/tcp is published twice
--volume: "./x": the folder it starts from is not known, write an absolute path
--volume: /y is mounted twice
--tmpfs: "1" has no unit, write 1MiB or 1B
--tmpfs: unknown option "huge", they are size, mode and ro
--cap-add: unknown capability "FOO"
--label: "" is not a name
--env-file: gone: there is no such file
--env: "A" has no value, write A=value
--env: "" is not a name
`, "\n")
	if got := err.Error() + "\n"; got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	u, err := FromRun(RunFlags{Image: "busybox", Ports: []string{"80:80"}, Volumes: []string{"/x"}, StopTimeout: "90s"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	var back Unit
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if !Equal(u, back) || u.Digest() != back.Digest() || len(u.Digest()) != len("sha256:")+64 {
		t.Errorf("read back as %+v", Diff(u, back))
	}
	if !strings.Contains(string(b), `"stop_grace_period":"1m30s"`) {
		t.Errorf("got %s", b)
	}
}
