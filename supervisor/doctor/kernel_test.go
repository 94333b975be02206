package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// This machine itself, as root: whatever its verdicts, nothing of it may change.
func TestThisHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts, namespaces and tables")
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir) // where other tests make no probes
	o := Options{Root: filepath.Join(dir, "lib"), RunDir: filepath.Join(dir, "run"), Bridge: "wdoctor0", CgroupParent: "wherry-doctor-test",
		Limit: 3 * time.Minute}
	if err := os.Mkdir(o.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	before := traces(t, dir)
	d := Run(t.Context(), o)
	if after := traces(t, dir); !slices.Equal(before, after) {
		t.Errorf("mounts, devices, groups were\n%q, are\n%q", before, after)
	}
	if left, err := os.ReadDir(o.Root); err != nil || len(left) > 0 {
		t.Errorf("left below the root: %v, %v", left, err)
	}
	if _, err := os.Stat(o.RunDir); err == nil {
		t.Error("a run folder was made")
	}
	for _, c := range d.Checks {
		t.Logf("%s %s: %s", c.Verdict, c.Name, c.Detail)
		if strings.HasPrefix(c.Detail, "no answer") || strings.HasPrefix(c.Detail, "the check itself") {
			t.Errorf("%+v", c)
		}
	}
	if len(d.Checks) != len(checks) || d.Checks[0].Verdict != api.Skip {
		t.Errorf("%+v", d.Checks)
	}
}

// traces is what probes could leave on the host. Others work on this machine too, so
// only what a doctor could have made is looked at.
func traces(t *testing.T, dir string) []string {
	var list []string
	for _, pattern := range []string{"/sys/class/net/wdoctor*", "/sys/class/net/probe*", "/sys/fs/cgroup/wherry-doctor-test", "/sys/fs/cgroup/*/wherry-doctor-test", dir + "/wherry-probe-*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) {
			list = append(list, line)
		}
	}
	return list
}
