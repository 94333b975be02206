package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestCarry takes an image from wherry to each tool that handles archives, and
// from the tool back to another wherry, which has no registry: there it must run.
func TestCarry(t *testing.T) {
	reg := registry(t)
	from, to := harness.StartHost(t), harness.StartHost(t)
	image := reg.Ref("busybox")
	from.OK("image", "pull", "-q", image)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	from.OK("image", "save", "-o", file("docker.tar"), image)
	from.OK("image", "save", "--format", "oci-archive", "-o", file("oci.tar"), image)
	from.OK("image", "save", "--format", "oci", "-o", file("layout"), image)

	runs := func(t *testing.T, name string) {
		t.Helper()
		if out := to.OK("run", "--rm", "--network", "none", "--pull", "never", name, "echo", "carried"); out != "carried\n" {
			t.Errorf("%s says %q", name, out)
		}
		to.OK("image", "rm", "-f", name)
	}
	tool := func(t *testing.T, name string, args ...string) {
		t.Helper()
		bin, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is not installed", name)
		}
		if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}

	t.Run("wherry", func(t *testing.T) {
		for _, f := range []string{"docker.tar", "oci.tar"} {
			if out := to.OK("image", "load", "-i", file(f)); !strings.Contains(out, image) {
				t.Errorf("load of %s says %q", f, out)
			}
			runs(t, image)
		}
		to.OK("image", "load", "-i", file("layout"))
		runs(t, image)
		if r := to.Feed(from.OK("image", "save", image), "image", "load"); r.Code != 0 {
			t.Errorf("through a pipe: %+v", r)
		}
		runs(t, image)
	})
	t.Run("skopeo", func(t *testing.T) {
		for i, src := range []string{"docker-archive:" + file("docker.tar"), "oci-archive:" + file("oci.tar") + ":latest", "oci:" + file("layout") + ":latest"} {
			for k, dst := range []string{"docker-archive", "oci-archive", "oci"} {
				out := fmt.Sprintf("skopeo%d%d", i, k)
				tool(t, "skopeo", "--insecure-policy", "copy", "-q", src, dst+":"+file(out)+":example.com/skopeo:1")
				to.OK("image", "load", "-i", file(out))
				runs(t, "example.com/skopeo:1")
			}
		}
	})
	t.Run("umoci", func(t *testing.T) {
		tool(t, "cp", "-a", file("layout"), file("umoci"))
		tool(t, "umoci", "config", "--image", file("umoci")+":latest", "--tag", "mine", "--config.cmd", "sh")
		tool(t, "umoci", "unpack", "--image", file("umoci")+":mine", file("bundle"))
		if err := os.WriteFile(file("bundle/rootfs/added"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		tool(t, "umoci", "repack", "--image", file("umoci")+":mine", file("bundle"))
		tool(t, "umoci", "rm", "--image", file("umoci")+":latest")
		to.OK("image", "load", "-i", file("umoci"), "--name", "example.com/umoci:1")
		if out := to.OK("run", "--rm", "--network", "none", "--pull", "never", "example.com/umoci:1", "cat", "/added"); out != "x" {
			t.Errorf("the added layer has %q", out)
		}
	})
	t.Run("podman", func(t *testing.T) {
		cli := func(args ...string) {
			t.Helper()
			tool(t, "podman", append([]string{"--root", file("podman/root"), "--runroot", file("podman/run"), "--storage-driver", "vfs"}, args...)...)
		}
		for _, in := range []string{"docker.tar", "oci.tar"} {
			cli("load", "-q", "-i", file(in))
			for _, f := range []string{"docker-archive", "oci-archive"} {
				out := file("podman-" + in + "-" + f)
				cli("save", "-q", "--format", f, "-o", out, image)
				to.OK("image", "load", "-i", out)
				runs(t, image)
			}
			cli("rmi", "-f", image)
		}
	})
	t.Run("docker", func(t *testing.T) {
		bin, err := exec.LookPath("dockerd")
		if err != nil {
			t.Skip("dockerd is not installed")
		}
		d := file("docker")
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		c := &command{label: "docker", cli: []string{"docker", "-H", "unix://" + d + "/sock"}}
		c.start(t, d, bin, "-H", "unix://"+d+"/sock", "--data-root", d+"/data", "--exec-root", d+"/run", "--pidfile", d+"/pid",
			"--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs")
		c.run(t, "load", "-q", "-i", file("docker.tar"))
		c.run(t, "save", "-o", file("from-docker.tar"), image)
		to.OK("image", "load", "-i", file("from-docker.tar"))
		runs(t, image)
	})
}
