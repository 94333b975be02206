package supervisor_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/wherry-run/wherry"

// rule forbids a package, or everything below it, to depend on others. A
// pattern that ends with "/..." means all below, test code apart.
type rule struct {
	who     string
	never   []string
	reason  string
	direct  bool // only what it imports itself
	outside []string
}

var rules = []rule{
	{who: "supervisor/plan", reason: "the plan is a pure function: nothing it imports may do I/O",
		never: []string{"os", "net", "net/http", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", module + "/runtime/...", module + "/image/..."}, direct: true},
	{who: "supervisor/unit", reason: "a unit file means the same without a daemon",
		never: []string{module + "/runtime/...", module + "/image/...", module + "/supervisor", "net/http"}},
	{who: "supervisor/api", reason: "a client links neither the supervisor nor what acts on the kernel",
		never: []string{module + "/runtime/...", module + "/image/...", module + "/supervisor", "go.etcd.io/bbolt"}},
	{who: "runtime/...", reason: "runtime and image do not know each other: mounts pass between them as plain values",
		never: []string{module + "/image/...", module + "/supervisor/..."}},
	{who: "image/...", reason: "image and runtime do not know each other, and nobody below knows the supervisor",
		never: []string{module + "/runtime/...", module + "/supervisor/..."}},
	{who: "cgroup/...", reason: "cgroup stands at the bottom",
		never: []string{module + "/runtime/...", module + "/image/...", module + "/supervisor/...", module + "/cmd/..."}},
	{who: "...", reason: "libcontainer re-executes its binary and needs cgo: it is fenced behind the keeper",
		never: []string{"github.com/opencontainers/runc/..."}, outside: []string{"runtime/keeper/...", "cmd/wherry-keeper/..."}},
	{who: "...", reason: "Sigstore's library makes every start of every command that links it 5 ms slower; it stands behind wherry-verify",
		never: []string{"github.com/sigstore/..."}, outside: []string{"image/keyless/sigstore/...", "cmd/wherry-verify/..."}},
	{who: "supervisor/...", reason: "the supervisor touches no namespace, mount, archive or registry",
		never: []string{"archive/tar", "github.com/google/go-containerregistry/...", "github.com/vishvananda/netlink", "github.com/google/nftables/...",
			"github.com/moby/sys/mountinfo", "github.com/klauspost/compress/..."}, direct: true},
	{who: "...", reason: "the AWS SDK makes every start of every command that links it 3 ms slower; it stands behind wherry-ecr",
		never: []string{"github.com/aws/...", "github.com/awslabs/..."}, outside: []string{"image/auth/ecr/sdk", "cmd/wherry-ecr/..."}},
	{who: "image/auth/...", reason: "credentials are found without a store, so that others can use them",
		never: []string{module + "/image", module + "/image/internal/..."}},
	{who: "image/internal/...", reason: "the parts of the image store do not know the store",
		never: []string{module + "/image", module + "/image/imagetest"}},
	{who: "image/internal/erofs", reason: "the format stands for itself",
		never: []string{module + "/image/...", "github.com/google/go-containerregistry/..."}},
	{who: "...", reason: "file systems and registries made for tests stay in tests",
		never:   []string{"github.com/hanwen/go-fuse/...", "github.com/erofs/go-erofs/...", "github.com/google/go-containerregistry/pkg/registry"},
		outside: []string{"integration/...", "image/imagetest"}},
	{who: "supervisor/...", reason: "commands are clients of the library, not the other way round",
		never: []string{module + "/cmd/...", "github.com/spf13/cobra"}},
	{who: "cmd/internal/ctl/...", reason: "ctl is a client of the API: it must work with a daemon of another version",
		never: []string{module + "/supervisor", module + "/image/...", module + "/runtime"}, direct: true},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImports(t *testing.T) {
	pkgs := list(t)
	if len(pkgs) < 5 {
		t.Fatalf("only %d packages found", len(pkgs))
	}
	for _, p := range pkgs {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, r := range rules {
			if !match(r.who, name) || matchAny(r.outside, name) {
				continue
			}
			deps := p.Deps
			if r.direct {
				deps = p.Imports
			}
			for _, d := range deps {
				if matchAny(r.never, d) && !(r.who == "..." && matchAny(r.never, p.ImportPath)) {
					t.Errorf("%s imports %s: %s", name, d, r.reason)
					break // one of them tells enough
				}
			}
		}
	}
}

func list(t *testing.T) []pkg {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Skip("no go command: ", err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if match(p, name) {
			return true
		}
	}
	return false
}

func match(pattern, name string) bool {
	if pattern == "..." {
		return true
	}
	if dir, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == dir || strings.HasPrefix(name, dir+"/")
	}
	return path.Clean(pattern) == name
}
