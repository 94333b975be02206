package integration

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestVM runs every story of vm/stories in a virtual machine with systemd as
// PID 1 and pure cgroup v2 (vm/build.sh makes it). WHERRY_VM_SUITES names the
// suites to run them on, "trixie" or "trixie,bookworm"; WHERRY_VM_TIMES a file
// that gets a line with the seconds of each story.
//
// A story may say what it needs in lines at its top: "# boots: N"; "# suites: NAME..." if it
// cannot run on all; "# append: WORDS" for the kernel's command line; "# cpus: N"; "# needs: packages"; and
// "# seconds: N", about what it takes: the longest begin first, so that none runs alone at the end.
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
	files := []string{filepath.Join(bin, "wherry"), filepath.Join(bin, "wherry-keeper"), demo, groups, quotas, testBinary(t, "../runtime"),
		"../cgroup/testdata", "vm/lib.sh", "../scripts"}
	packages := sync.OnceValue(func() string { return twoPackages(t, bin) })
	stories, err := filepath.Glob("vm/stories/*.sh")
	if err != nil || len(stories) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	slices.SortStableFunc(stories, func(a, b string) int { return seconds(t, b) - seconds(t, a) })
	for _, suite := range strings.Split(cmp.Or(os.Getenv("WHERRY_VM_SUITES"), "trixie"), ",") {
		t.Run(suite, func(t *testing.T) {
			next := make(chan string, len(stories))
			for _, story := range stories {
				next <- story
			}
			close(next)
			var wg sync.WaitGroup
			for range atOnce() { // each story has a machine of its own
				wg.Go(func() {
					for story := range next {
						t.Run(filepath.Base(story), func(t *testing.T) {
							if on := strings.Fields(strings.ReplaceAll(said(t, story, "suites", suite), ",", " ")); !slices.Contains(on, suite) {
								t.Skipf("runs on %v", on)
							}
							more := files
							if said(t, story, "needs", "") == "packages" {
								more = append(slices.Clip(files), packages())
							}
							tell(t, suite, story, more)
						})
					}
				})
			}
			wg.Wait()
		})
	}
}

// atOnce is how many stories run side by side: as many as parallel tests may. Those would begin in any order.
func atOnce() int {
	if n, err := strconv.Atoi(flag.Lookup("test.parallel").Value.String()); err == nil && n > 0 {
		return n
	}
	return 1
}

func seconds(t *testing.T, story string) int {
	n, err := strconv.Atoi(said(t, story, "seconds", "30"))
	if err != nil {
		t.Errorf("%s: seconds: %v", story, err)
	}
	return n
}

// tell runs one story in a machine that has these files.
func tell(t *testing.T, suite, story string, files []string) {
	began := time.Now()
	defer func() { noteTime(t, suite, story, time.Since(began)) }()
	args := []string{"-t", "1800", "-b", said(t, story, "boots", "1"), "-c", said(t, story, "cpus", "1"), story}
	run := exec.Command("vm/run.sh", append(args, files...)...)
	run.Env = append(os.Environ(), "VM_SUITE="+suite)
	if words := said(t, story, "append", ""); words != "" {
		run.Env = append(run.Env, "VM_APPEND="+words)
	}
	out, err := run.CombinedOutput()
	t.Logf("%s", out)
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() == 125 {
		t.Fatalf("the virtual machine did not run: is it built (VM_SUITE=%s integration/vm/build.sh)?", suite)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// noteTime tells how long a story took, also where nobody reads the log.
func noteTime(t *testing.T, suite, story string, took time.Duration) {
	line := fmt.Sprintf("%4.0f s  %s %s\n", took.Seconds(), suite, filepath.Base(story))
	t.Log(strings.TrimSpace(line))
	file := os.Getenv("WHERRY_VM_TIMES")
	if file == "" {
		return
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteString(line); err != nil {
		t.Error(err)
	}
}

func testBinary(t *testing.T, pkg string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(pkg)+".test")
	build := exec.Command("go", "test", "-c", "-ldflags", "-s -w", "-o", file, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build of the tests of %s: %v\n%s", pkg, err, out)
	}
	return file
}

// said is what a line "# KEY: VALUE" of a story says, such as how often its machine boots.
func said(t *testing.T, story, key, without string) string {
	text, err := os.ReadFile(story)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "# "+key+": "); ok {
			return v
		}
	}
	return without
}

// twoPackages are the .deb of two versions, in the folders 1 and 2. The second one's programs differ
// by a few bytes behind them, which makes another build as far as anybody can tell.
func twoPackages(t *testing.T, bin string) string {
	dir := filepath.Join(t.TempDir(), "packages")
	pages := filepath.Join(t.TempDir(), "pages")
	if out, err := exec.Command("go", "run", "../cmd/internal/manual", pages).CombinedOutput(); err != nil {
		t.Errorf("manual: %v\n%s", err, out)
	}
	for n, version := range []string{"v1.0.0", "v1.1.0"} {
		programs := t.TempDir()
		for _, name := range []string{"wherry", "wherry-keeper"} {
			b, err := os.ReadFile(filepath.Join(bin, name))
			if err == nil {
				err = os.WriteFile(filepath.Join(programs, name), append(b, strings.Repeat("+", n)...), 0o755)
			}
			if err != nil {
				t.Error(err)
			}
		}
		c := exec.Command("../scripts/packages", "-q", "-f", "deb", "-b", programs, "-m", pages, filepath.Join(dir, strconv.Itoa(n+1)))
		c.Env = append(os.Environ(), "VERSION="+version)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("packages: %v\n%s", err, out)
		}
	}
	return dir
}
