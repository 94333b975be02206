package keeper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

func TestParseStat(t *testing.T) {
	fields := make([]string, 50) // from field 3 on
	for i := range fields {
		fields[i] = "0"
	}
	fields[0], fields[22-3], fields[52-3] = "Z", "12345", "1792"
	tests := []struct{ name, text string }{
		{"plain", "7 (sleep) "},
		{"brackets and spaces", "7 (a) b ( ) "},
	}
	for _, tt := range tests {
		got, err := parseStat([]byte(tt.text + strings.Join(fields, " ") + "\n"))
		if err != nil || got != (procStat{state: 'Z', startTime: 12345, exitCode: 1792}) {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
	for _, bad := range []string{"", "7 (x", "7 (x) S 1 2 3", "7 (x) " + strings.Repeat("x ", 50)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	if own, err := readStat(os.Getpid()); err != nil || own.startTime == 0 {
		t.Errorf("our own: %+v, %v", own, err)
	}
}

func TestParseRecord(t *testing.T) {
	at := time.Unix(1700000000, 42)
	record := func(magic, status uint32) []byte {
		b := binary.NativeEndian.AppendUint32(nil, magic)
		b = binary.NativeEndian.AppendUint32(b, status)
		b = binary.NativeEndian.AppendUint64(b, uint64(at.Unix()))
		return binary.NativeEndian.AppendUint64(b, uint64(at.Nanosecond()))
	}
	ws, when, ok := parseRecord(record(recordMagic, 7<<8))
	if !ok || ws.ExitStatus() != 7 || !when.Equal(at) {
		t.Errorf("code 7: %v %v %v", ws, when, ok)
	}
	if ws, _, ok := parseRecord(record(recordMagic, 9)); !ok || ws.Signal() != unix.SIGKILL {
		t.Errorf("SIGKILL: %v %v", ws, ok)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "not written": make([]byte, recordSize), "short": record(recordMagic, 0)[:20],
		"foreign": record(1, 0), "not an end": record(recordMagic, 0x137f),
	} {
		if _, _, ok := parseRecord(b); ok {
			t.Errorf("%s: taken for a record", name)
		}
	}
}

func TestAwaitExec(t *testing.T) {
	report := func(part, errno int) []byte {
		b := binary.NativeEndian.AppendUint32([]byte("w"), uint32(part))
		return binary.NativeEndian.AppendUint32(b, uint32(errno))
	}
	tests := []struct {
		name string
		raw  []byte
		want error
	}{
		{"exec'd", []byte("w"), nil},
		{"not found", report(3, int(unix.ENOENT)), runtime.ErrCommand},
		{"a file in the path", report(3, int(unix.ENOTDIR)), runtime.ErrCommand},
		{"no interpreter", report(4, int(unix.ENOENT)), runtime.ErrCommand},
		{"not executable", report(3, int(unix.EACCES)), runtime.ErrNotExecutable},
		{"no format", report(3, int(unix.ENOEXEC)), runtime.ErrNotExecutable},
		{"filter", report(1, int(unix.EINVAL)), unix.EINVAL},
		{"fork", report(2, int(unix.EAGAIN)), unix.EAGAIN},
	}
	for _, tt := range tests {
		err := awaitExec(bytes.NewReader(tt.raw))
		if !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	for name, raw := range map[string]string{"half a report": "wcut", "no greeting": "", "another greeting": "x"} {
		if err := awaitExec(strings.NewReader(raw)); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for _, s := range []string{"SIGHUP", "HUP", "hup", "1"} {
		if sig, err := parseSignal(s); err != nil || sig != unix.SIGHUP {
			t.Errorf("%s: %v, %v", s, sig, err)
		}
	}
	for _, s := range []string{"", "0", "65", "SIGNONSENSE", "-1"} {
		if _, err := parseSignal(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func TestOldOverlayOptions(t *testing.T) {
	flags, data, base, err := oldOverlayOptions([]string{
		"ro", "lowerdir+=/var/lib/wherry/layers/a", "lowerdir+=/var/lib/wherry/layers/b:c", "upperdir=/up", "workdir=/work", "userxattr",
	})
	want := `lowerdir=a:b\:c,upperdir=/up,workdir=/work,userxattr`
	if err != nil || flags != unix.MS_RDONLY || base != "/var/lib/wherry/layers" || data != want {
		t.Errorf("%d %q %q %v", flags, data, base, err)
	}
	if got := commonDir([]string{"/a/b/c", "/a/bb/c"}); got != "/a" {
		t.Errorf("commonDir = %s", got)
	}
	if got := commonDir([]string{"/a", "/b"}); got != "/" {
		t.Errorf("commonDir = %s", got)
	}
}

func TestMountOptions(t *testing.T) {
	flags, data := mountOptions([]string{"rbind", "ro", "nosuid", "rw", "size=5m", "mode=755"})
	if flags != unix.MS_BIND|unix.MS_REC|unix.MS_RDONLY|unix.MS_NOSUID || strings.Join(data, ",") != "size=5m,mode=755" {
		t.Errorf("%x %v", flags, data)
	}
}

func TestFit(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	poor := host{caps: map[string]bool{"CAP_KILL": true}, oomScoreAdj: 0}
	spec := func() *specs.Spec {
		adj := -500
		caps := []string{"CAP_KILL", "CAP_SYS_RESOURCE"}
		return &specs.Spec{Process: &specs.Process{
			OOMScoreAdj:  &adj,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 40, Hard: 1 << 40}},
		}}
	}
	s := spec()
	poor.fit(s, log)
	if *s.Process.OOMScoreAdj != 0 || len(s.Process.Capabilities.Bounding) != 1 || len(s.Process.Capabilities.Effective) != 1 || s.Process.Rlimits[0].Hard >= 1<<40 {
		t.Errorf("not fitted: %+v", s.Process)
	}
	for _, want := range []string{"oom_score_adj", "CAP_SYS_RESOURCE", "RLIMIT_NOFILE"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("nothing said about %s", want)
		}
	}
	rich := host{caps: map[string]bool{"CAP_KILL": true, capSysResource: true}}
	s = spec()
	rich.fit(s, log)
	if *s.Process.OOMScoreAdj != -500 || len(s.Process.Capabilities.Bounding) != 2 || s.Process.Rlimits[0].Hard != 1<<40 {
		t.Errorf("taken away from a rich host: %+v", s.Process)
	}
	// A protected keeper does not hand its protection on.
	for _, tt := range []struct {
		h    host
		want int
	}{{host{oomScoreAdj: -900}, 0}, {host{oomScoreAdj: 200}, 200}, {host{caps: rich.caps, oomScoreAdj: 200}, 0}} {
		s := &specs.Spec{Process: &specs.Process{}}
		tt.h.fit(s, log)
		if *s.Process.OOMScoreAdj != tt.want {
			t.Errorf("oom_score_adj of a container of a keeper with %d = %d, want %d", tt.h.oomScoreAdj, *s.Process.OOMScoreAdj, tt.want)
		}
	}
}

func TestRootCaps(t *testing.T) {
	all := []string{"CAP_CHOWN", "CAP_KILL"}
	root := &specs.LinuxCapabilities{Bounding: all}
	giveRootCaps(root, 0)
	other := &specs.LinuxCapabilities{Bounding: all}
	giveRootCaps(other, 1000)
	chosen := &specs.LinuxCapabilities{Bounding: all, Permitted: all[:1], Effective: all[:1]}
	giveRootCaps(chosen, 0)
	giveRootCaps(nil, 0)
	if len(root.Effective) != 2 || len(root.Permitted) != 2 || len(other.Effective) != 0 || len(chosen.Effective) != 1 {
		t.Errorf("root %+v, another user %+v, chosen %+v", root, other, chosen)
	}
}

func TestTranslate(t *testing.T) {
	tests := []struct {
		text string
		step runtime.Step
		want string
	}{
		{`unable to start container process: error during container init: error mounting "/x" to rootfs at "/y": no such file`, runtime.StepRootfs, `rootfs: error mounting "/x" to rootfs at "/y": no such file`},
		{"unable to start container process: unable to apply cgroup configuration: no space", runtime.StepCgroup, "cgroup: unable to apply cgroup configuration: no space"},
		{`unable to start container process: error during container init: chdir to cwd ("/no\"such") set in config.json failed: no such file`, runtime.StepProcess, `process: working directory "/no\"such": no such file`},
		{"something else", runtime.StepProcess, "process: something else"},
	}
	for _, tt := range tests {
		err := translate(errors.New(tt.text))
		var se *runtime.StepError
		if !errors.As(err, &se) || se.Step != tt.step || err.Error() != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

func TestErrorReply(t *testing.T) {
	r := errorReply(stepError(runtime.StepProcess, fmt.Errorf("exec %q: %w", "x", runtime.ErrCommand)))
	if r != (wire.ErrorReply{Code: wire.Command, Step: "process", Message: `exec "x": command not found`}) {
		t.Errorf("%+v", r)
	}
	if r := errorReply(errors.New("x")); r.Code != wire.Internal || r.Step != "" {
		t.Errorf("%+v", r)
	}
}

func TestParseFlags(t *testing.T) {
	f, err := parseFlags([]string{"--root", "/r", "--cgroup-parent", "a/b"})
	if err != nil || f.root != "/r" || f.cgroupParent != "/a/b" || f.lock != -1 {
		t.Errorf("%+v, %v", f, err)
	}
	for _, bad := range [][]string{{"--nonsense"}, {"extra"}, {"--cgroup-parent", "/"}, {"--cgroup-parent", ".."}} {
		if _, err := parseFlags(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// TestReadStates: the files of testdata are those of every released format.
func TestReadStates(t *testing.T) {
	l := bundle.Layout{RunDir: t.TempDir()}
	if err := os.MkdirAll(l.Containers(), 0o700); err != nil {
		t.Fatal(err)
	}
	fixture, err := os.ReadFile("testdata/state-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"web.1-7f3k.app.json": string(fixture),
		"renamed.json":        string(fixture),
		"newer.json":          `{"format": 99, "id": "newer"}`,
		"broken.json":         `{`,
		"other.stdout":        "",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(l.Containers(), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	states, errs := readStates(l)
	if len(states) != 1 || len(errs) != 3 {
		t.Fatalf("%d states, errors %v", len(states), errs)
	}
	st := states[0]
	if st.State != runtime.Running || st.Pid != 4711 || st.StartTime != 123456 || !st.Init ||
		st.Process.UID != 1000 || st.Filter.Hash != "abc" || st.Log.MaxFile != 3 || st.StopGracePeriod != 30*time.Second {
		t.Errorf("%+v", st)
	}
}

func TestWithHome(t *testing.T) {
	if got := withHome([]string{"A=b"}, "/h"); strings.Join(got, " ") != "A=b HOME=/h" {
		t.Error(got)
	}
	if got := withHome([]string{"HOME=/x"}, "/h"); strings.Join(got, " ") != "HOME=/x" {
		t.Error(got)
	}
	if got := withHome(nil, ""); strings.Join(got, " ") != "HOME=/" {
		t.Error(got)
	}
}
