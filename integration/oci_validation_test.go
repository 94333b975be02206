package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// validation is the release of the OCI's runtime-tools whose validation suite
// is run. Nothing of it is kept here.
const validation = "github.com/opencontainers/runtime-tools@v0.9.1-0.20251114084447-edf4cb3d2116"

// deviations are the suite's tests that do not pass, with the reason. runc 1.5 with the same
// library fails in every one of them as well, and in the whole of process_capabilities.
var deviations = map[string]string{
	"delete":                         "delete ends a container that was created and not started: its engine's only way to undo, as in runc",
	"delete_resources":               "the suite compares the address of its limit on processes with itself",
	"hooks_stdin":                    "libcontainer calls hooks before it notes the new status, so they read the one before",
	"linux_cgroups_blkio":            "needs CFQ's leaf weight, which kernels from 5.0 on do not have",
	"linux_cgroups_relative_blkio":   "needs CFQ's leaf weight, which kernels from 5.0 on do not have",
	"linux_cgroups_devices":          "libcontainer writes the fewest rules that mean the same, the suite wants its own",
	"linux_cgroups_relative_devices": "libcontainer writes the fewest rules that mean the same, the suite wants its own",
	"linux_cgroups_hugetlb":          "needs v1's hugetlb controller, which not every host has",
	"linux_cgroups_relative_hugetlb": "needs v1's hugetlb controller, which not every host has",
	"linux_cgroups_memory":           "needs v1's limit on kernel memory, which is ignored since kernel 5.16",
	"linux_cgroups_relative_memory":  "needs v1's limit on kernel memory, which is ignored since kernel 5.16",
	"linux_cgroups_network":          "needs v1's net_cls controller, which not every host has",
	"linux_cgroups_relative_network": "needs v1's net_cls controller, which not every host has",
	"linux_cgroups_cpus":             "needs v1",
	"linux_cgroups_relative_cpus":    "needs v1",
	"linux_cgroups_pids":             "the suite compares the address of its limit on processes with itself",
	"linux_cgroups_relative_pids":    "the suite compares the address of its limit on processes with itself",
	"linux_devices":                  "asks for a named pipe with a device number, which libcontainer refuses since 1.3.3 (CVE-2025-52565)",
	"linux_mount_label":              "needs SELinux with a policy",
	"linux_process_apparmor_profile": "needs AppArmor",
	"linux_seccomp":                  "forbids getcwd(2), by which libcontainer checks the working directory (CVE-2024-21626)",
	"misc_props":                     "its first bundle lacks the program that it wants run",
	"mounts":                         "gives a bind mount options of a file system, which libcontainer refuses",
	"pidfile":                        "kills a container that has ended by itself",
	"process_capabilities":           "needs every capability, which not every host has",
	"process_capabilities_fail":      "wants an unknown capability to be refused; libcontainer warns, so that bundles of newer engines run",
	"process_rlimits":                "raises hard limits and then lowers the address space below what libcontainer's init needs",
	"start":                          "wants a config without a process, which libcontainer cannot make a container of",
}

// TestOCIValidation runs the OCI's own suite. It is fetched and built, and takes two minutes:
// WHERRY_OCI_VALIDATION=. asks for it, or a pattern of tests. WHERRY_OCI_RUNTIME names another runtime to compare with.
func TestOCIValidation(t *testing.T) {
	if os.Getenv("WHERRY_OCI_VALIDATION") == "" {
		t.Skip("long: WHERRY_OCI_VALIDATION=.")
	}
	wanted, err := regexp.Compile(os.Getenv("WHERRY_OCI_VALIDATION"))
	if err != nil {
		t.Fatal(err)
	}
	o := newOCI(t)
	runtime := o.exe
	if other := os.Getenv("WHERRY_OCI_RUNTIME"); other != "" {
		runtime = other
	}
	dir := buildValidation(t)
	tests, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := os.MkdirTemp("", "wherry-oci-")
	if err == nil {
		err = os.Chmod(bundles, 0o711) // users of containers have to get there
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(bundles)
	notOK := regexp.MustCompile(`(?m)^not ok .*`)
	for _, test := range tests {
		name := test.Name()
		if name == "runtimetest" || strings.HasSuffix(name, ".tar.gz") || !wanted.MatchString(name) {
			continue
		}
		c := exec.Command(filepath.Join(dir, name))
		c.Dir = dir
		c.Env = append(os.Environ(), "RUNTIME="+runtime, "TMPDIR="+bundles)
		// Some of its containers have no mount namespace: what they mount must not stay.
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		var out, errs bytes.Buffer
		c.Stdout, c.Stderr = &out, &errs
		err := c.Run()
		failed := notOK.FindAllString(out.String(), -1)
		switch reason := deviations[name]; {
		case err == nil && len(failed) == 0 && reason != "":
			t.Logf("%s passes here, though: %s", name, reason)
		case err == nil && len(failed) == 0:
		case reason != "":
			t.Logf("%s: %d not ok, as expected: %s", name, len(failed), reason)
		default:
			t.Errorf("%s: %v\n%s\n%s", name, err, strings.Join(failed, "\n"), errs.String())
		}
	}
	removeGroups("cgrouptest", "testdir")
}

// buildValidation returns a folder with the suite's programs.
func buildValidation(t *testing.T) string {
	t.Helper()
	work, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte("module fetch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	fetch := exec.Command("go", "mod", "download", "-json", validation)
	fetch.Dir = work
	out, err := fetch.Output()
	if err != nil {
		t.Skipf("cannot fetch %s: %v\n%s", validation, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-mod=readonly", "-o", dir+"/", "./validation/...", "./cmd/runtimetest")
	build.Dir, build.Env = module.Dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("cannot build %s: %v\n%s", validation, err, out)
	}
	archives, _ := filepath.Glob(filepath.Join(module.Dir, "rootfs-*.tar.gz"))
	for _, a := range archives {
		b, err := os.ReadFile(a)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(a)), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// removeGroups removes empty groups that the suite leaves at the top of each hierarchy.
func removeGroups(names ...string) {
	for _, tree := range groupTrees() {
		for _, name := range names {
			var dirs []string
			filepath.WalkDir(filepath.Join(tree, name), func(p string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
			slices.Reverse(dirs)
			for _, d := range dirs {
				unix.Rmdir(d)
			}
		}
	}
}
