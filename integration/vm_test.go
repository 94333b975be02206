package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestVM runs every story of vm/stories in a virtual machine with systemd as
// PID 1 and pure cgroup v2 (vm/build.sh makes it).
func TestVM(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("no QEMU: scripts/setup test")
	}
	bin := harness.Bin(t)
	demo := filepath.Join(t.TempDir(), "demo")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", demo, "./demo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build of the demo: %v\n%s", err, out)
	}
	// Tests that skip here: the machine has no cgroup v2 alone, and its kernel no quotas of ext4.
	groups, quotas := testBinary(t, "../cgroup"), testBinary(t, "../image/internal/quota")
	containers := testBinary(t, "../runtime")
	stories, err := filepath.Glob("vm/stories/*.sh")
	if err != nil || len(stories) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, story := range stories {
		t.Run(filepath.Base(story), func(t *testing.T) {
			t.Parallel() // each has a machine of its own
			out, err := exec.Command("vm/run.sh", "-t", "600", "-b", boots(t, story), story,
				filepath.Join(bin, "wherry"), filepath.Join(bin, "wherry-keeper"), demo, groups, quotas, containers, "../cgroup/testdata",
				"vm/lib.sh", "../scripts").CombinedOutput()
			t.Logf("%s", out)
			if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() == 125 {
				t.Fatal("the virtual machine did not run: is it built (integration/vm/build.sh)?")
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func testBinary(t *testing.T, pkg string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(pkg)+".test")
	build := exec.Command("go", "test", "-c", "-o", file, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build of the tests of %s: %v\n%s", pkg, err, out)
	}
	return file
}

// boots is how often the machine of a story boots: a line "# boots: N" says so.
func boots(t *testing.T, story string) string {
	text, err := os.ReadFile(story)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "# boots: "); ok {
			return n
		}
	}
	return "1"
}
