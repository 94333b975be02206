package keeper

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/spec"
)

func TestMakeNode(t *testing.T) {
	st := unix.Stat_t{Mode: unix.S_IFBLK | 0o660, Uid: 0, Gid: 6, Rdev: unix.Mkdev(8, 300)}
	n, err := makeNode(&st, runtime.Device{Target: "/dev/x", Permissions: "r"})
	if err != nil || n.Path != "/dev/x" || n.Type != "b" || n.Major != 8 || n.Minor != 300 || *n.FileMode != 0o660 || *n.UID != 0 || *n.GID != 6 || n.access != "r" {
		t.Errorf("%+v, %v", n, err)
	}
	mode, uid, gid := uint32(0o604), uint32(1), uint32(2)
	st.Mode = unix.S_IFCHR | 0o600
	n, err = makeNode(&st, runtime.Device{Mode: &mode, UID: &uid, GID: &gid})
	if err != nil || n.Type != "c" || *n.FileMode != 0o604 || *n.UID != 1 || *n.GID != 2 {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := makeNode(&unix.Stat_t{Mode: unix.S_IFREG}, runtime.Device{}); err == nil {
		t.Error("a file is a device")
	}
}

func TestLookUpDevice(t *testing.T) {
	dir := t.TempDir()
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "file")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	nodes, err := lookUpDevice(runtime.Device{Source: link, Target: "/dev/nothing", Permissions: "rw"})
	if err != nil || len(nodes) != 1 || nodes[0].Major != 1 || nodes[0].Minor != 3 || nodes[0].Path != "/dev/nothing" {
		t.Errorf("a link: %+v, %v", nodes, err)
	}
	for source, want := range map[string]string{
		"/dev/no-such-device": "device /dev/no-such-device: no such file or directory",
		file:                  "device " + file + ": neither a character nor a block device",
		dir:                   "device " + dir + ": there is no device in the folder",
	} {
		if _, err := lookUpDevice(runtime.Device{Source: source, Target: "/x"}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", source, err)
		}
	}
	all, err := lookUpDevice(runtime.Device{Source: "/dev", Target: "/dev"})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if strings.HasPrefix(n.Path, "/dev/pts/") || n.Path == "/dev/console" {
			t.Errorf("%s is every container's own", n.Path)
		}
	}
}

func TestChooseLabels(t *testing.T) {
	const process, file = "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"
	level := runLevel("web.1-abcd")
	for options, want := range map[string][2]string{
		"":                                     {"system_u:system_r:container_t:" + level, "system_u:object_r:container_file_t:" + level},
		"disable":                              {"", "system_u:object_r:container_file_t:s0"},
		"type:container_init_t level:s0:c5,c6": {"system_u:system_r:container_init_t:s0:c5,c6", "system_u:object_r:container_file_t:s0:c5,c6"},
		"user:a_u role:b_r filetype:c_t type:d_t":    {"a_u:b_r:d_t:" + level, "system_u:object_r:c_t:" + level},
		"type:spc_t level:s0-s0:c0.c1023 filetype:x": {"system_u:system_r:spc_t:s0-s0:c0.c1023", "system_u:object_r:x:s0-s0:c0.c1023"},
	} {
		p, f, err := chooseLabels(process, file, options, "web.1-abcd")
		if err != nil || p != want[0] || f != want[1] {
			t.Errorf("%q: %q %q %v", options, p, f, err)
		}
	}
	if _, _, err := chooseLabels(process, file, "colour:blue", "x"); err == nil {
		t.Error("an unknown part is accepted")
	}
	if _, _, err := chooseLabels("none", "none", "", "x"); err == nil {
		t.Error("labels of no policy are accepted")
	}
}

// Runs have categories of their own: two of them, the smaller first.
func TestRunLevel(t *testing.T) {
	seen := map[string]bool{}
	for i := range 2000 {
		level := runLevel(strings.Repeat("x", i%50) + string(rune('a'+i/50)))
		var a, b int
		if n, err := fmt.Sscanf(level, "s0:c%d,c%d", &a, &b); n != 2 || err != nil || a < 0 || a >= b || b > 1023 {
			t.Fatalf("level %s", level)
		}
		seen[level] = true
	}
	if len(seen) < 1980 {
		t.Errorf("2000 runs have %d levels", len(seen))
	}
	if first, again := runLevel("a"), runLevel("a"); first != again {
		t.Error("a run's level changes")
	}
}

func TestAppArmor(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	log := slog.New(slog.DiscardHandler)
	off := &appArmor{enabled: filepath.Join(dir, "absent")}
	for want, ok := range map[string]bool{"": true, "unconfined": true, "wherry-default": true, "mine": false} {
		if got, err := off.choose(want, log); got != "" || (err == nil) != ok {
			t.Errorf("without AppArmor %q: %q, %v", want, got, err)
		}
	}
	on := func(parser ...string) *appArmor {
		return &appArmor{enabled: file("enabled", "Y\n", 0o600), profiles: file("profiles", "mine (enforce)\nother (complain)\n", 0o600), parser: parser}
	}
	good := file("parser", "#!/bin/sh\ncat >"+dir+"/text\n", 0o700)
	bad := file("bad", "#!/bin/sh\necho syntax >&2\nexit 1\n", 0o700)
	for _, c := range []struct{ want, parser, profile, err string }{
		{"", good, "wherry-default", ""}, {"wherry-default", good, "wherry-default", ""}, {"unconfined", bad, "unconfined", ""}, {"mine", bad, "mine", ""},
		{"yours", good, "", "no such profile"}, {"", bad, "", ""}, {"wherry-default", bad, "", "syntax"}, {"wherry-default", "/absent", "", "not installed"},
	} {
		got, err := on(c.parser).choose(c.want, log)
		if got != c.profile || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	if b, err := os.ReadFile(dir + "/text"); err != nil || !strings.Contains(string(b), "profile wherry-default") {
		t.Errorf("the parser got %q, %v", b, err)
	}
}

// The real parser takes our profile, with and without the distribution's own rules.
func TestAppArmorProfile(t *testing.T) {
	parser, err := exec.LookPath("/sbin/apparmor_parser")
	if err != nil {
		t.Skip("no apparmor_parser: apt-get install apparmor")
	}
	for _, base := range []string{"/etc/apparmor.d/abstractions/base", "/absent"} {
		text := profileText("wherry-default", base)
		cmd := exec.Command(parser, "--skip-kernel-load", "--skip-cache")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s\n%s", err, out, text)
		}
	}
}

// Docker's profile is for our init too; one that forbids what it needs is found out.
func TestForbidsInit(t *testing.T) {
	res, err := spec.Build(spec.Image{Cmd: []string{"x"}}, spec.Container{Network: spec.None, Bounded: true})
	if err != nil {
		t.Fatal(err)
	}
	rule := func(action specs.LinuxSeccompAction, calls ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: calls, Action: action}
	}
	for _, c := range []struct {
		profile *specs.LinuxSeccomp
		want    string
	}{
		{nil, ""}, {res.Spec.Linux.Seccomp, ""},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, ""},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActErrno, "mount", "kill")}}, "kill"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{rule(specs.ActAllow, "read", "execve")}}, "rt_sigtimedwait"},
	} {
		if got := forbidsInit(c.profile); got != c.want {
			t.Errorf("%+v: %q", c.profile, got)
		}
	}
}

// TestAppArmorIsSet: specconv does not hand the profile on.
func TestAppArmorIsSet(t *testing.T) {
	s := &specs.Spec{
		Root: &specs.Root{Path: "/rootfs"}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}, CgroupsPath: "/x"},
		Process: &specs.Process{Args: []string{"/x"}, Cwd: "/", ApparmorProfile: defaultProfile},
	}
	conf, err := libcontainerConfig(s, true)
	if err != nil || conf.AppArmorProfile != defaultProfile {
		t.Errorf("%+v, %v", conf, err)
	}
}
