package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/integration/harness"
)

// versions pushes n images that share a shell and have a text of their own, and
// returns their names and digests.
func versions(t *testing.T, r *imagetest.Registry, name string, n int) (refs, digests []string) {
	t.Helper()
	for i := range n {
		ref := fmt.Sprintf("%s:%d", name, i+1)
		digest, err := r.Push(ref, small(t, fmt.Sprintf("%s %d\n", name, i+1)))
		if err != nil {
			t.Fatal(err)
		}
		refs, digests = append(refs, r.Host+"/"+ref), append(digests, digest)
	}
	return refs, digests
}

// TestCollectKeepsWhatIsNeeded: running containers, the last revisions of a unit, and
// what no unit has is told apart, by what happens and by what is said.
func TestCollectKeepsWhatIsNeeded(t *testing.T) {
	r := liar(t)
	h := harness.NewHost(t)
	h.Config = "gc: {keep_revisions: 3, min_age: 0s}\n"
	h.Start()
	refs, _ := versions(t, r, "app", 5)
	for _, ref := range refs {
		h.Apply("web", sleeper(ref))
		h.Running("web", 1)
	}
	loose, _ := versions(t, r, "loose", 1)
	h.OK("pull", "-q", loose[0])
	ended, _ := versions(t, r, "ended", 1)
	h.OK("run", "-d", "--name", "once", "--net", "none", ended[0], "/bin/sh", "-c", "exit 0")
	stopped, _ := versions(t, r, "stopped", 1)
	h.Apply("idle", sleeper(stopped[0]))
	h.Running("idle", 1)
	h.OK("stop", "idle")

	listed := func() string { return h.OK("image", "list", "-q") }
	all := listed()
	explain := func(ref, word string) {
		t.Helper()
		out := h.OK("image", "gc", "--explain", ref)
		if !strings.Contains(out, word) {
			t.Errorf("%s is explained without %q:\n%s", ref, word, out)
		}
	}
	explain(refs[4], "current revision 5 of unit web")
	explain(refs[4], "container web.1")
	explain(refs[3], "revision 4 of unit web")
	explain(refs[2], "revision 3 of unit web")
	explain(refs[0], "nobody needs it")
	explain(loose[0], "nobody needs it")
	explain(stopped[0], "unit idle")

	dry := h.OK("image", "gc", "--all", "--dry-run")
	if got := listed(); got != all {
		t.Errorf("a dry run deletes: %s, was %s", got, all)
	}
	gone := []string{refs[0], refs[1], loose[0]}
	kept := []string{refs[2], refs[3], refs[4], stopped[0]}
	for _, ref := range gone {
		if !strings.Contains(dry, ref) {
			t.Errorf("the dry run does not name %s:\n%s", ref, dry)
		}
	}
	if out := h.OK("image", "gc"); strings.Contains(out, refs[0]) {
		t.Errorf("an image with a name went without need:\n%s", out)
	}
	h.OK("image", "gc", "--all")
	left := listed()
	for _, ref := range gone {
		if strings.Contains(left, ref+"\n") {
			t.Errorf("%s stays", ref)
		}
	}
	for _, ref := range kept {
		if !strings.Contains(left, ref+"\n") {
			t.Errorf("%s went", ref)
		}
	}
	// A rollback needs no registry, and the one that runs is not disturbed.
	r.Break(imagetest.Fault{Status: 500})
	h.OK("start", "idle")
	h.Running("idle", 1)
	h.OK("exec", "web", "/bin/sh", "-c", "read x </text; [ \"$x\" = 'app 5' ]")
	for _, n := range []int{3, 2} {
		h.Apply("web", sleeper(refs[n]))
		h.Running("web", 1)
		h.OK("exec", "web", "/bin/sh", "-c", fmt.Sprintf("read x </text; [ \"$x\" = 'app %d' ]", n+1))
	}
	r.Mend()
	h.OK("rm", "-f", "web", "idle", "once")
	h.OK("image", "gc", "--all")
	if got := listed(); got != "" {
		t.Errorf("without units there is still %s", got)
	}
	if l := storeLeftovers(h); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// TestCollectDuringStarts: a collection at any moment of a pull, a start or a
// replacement takes nothing away that they need.
func TestCollectDuringStarts(t *testing.T) {
	r := liar(t)
	h := harness.NewHost(t)
	h.Config = "gc: {keep_revisions: 2, min_age: 0s}\n"
	h.Start()
	refs, _ := versions(t, r, "app", 4)
	ran, _ := versions(t, r, "ran", 4)
	stop := make(chan struct{})
	var collector sync.WaitGroup
	collections := 0
	collector.Go(func() {
		for ; ; collections++ {
			select {
			case <-stop:
				return
			default:
				h.OK("image", "gc", "--all")
			}
		}
	})
	var work sync.WaitGroup
	work.Go(func() {
		for i := range 16 {
			h.Apply("web", sleeper(refs[i%4]))
			h.Running("web", 1)
		}
	})
	work.Go(func() {
		for i := range 16 {
			out := h.Run("run", "--rm", "--net", "none", ran[i%4], "/bin/sh", "-c", "read x </text; echo $x")
			if want := fmt.Sprintf("ran %d\n", i%4+1); out.Code != 0 || out.Stdout != want {
				t.Errorf("run %d: exit code %d, %q, want %q\n%s", i, out.Code, out.Stdout, want, out.Stderr)
			}
		}
	})
	work.Go(func() {
		for i := range 16 {
			h.OK("pull", "-q", ran[i%4])
		}
	})
	work.Wait()
	close(stop)
	collector.Wait()
	if collections < 5 {
		t.Errorf("only %d collections", collections)
	}
	if out := h.OK("events"); strings.Contains(out, "start_failed") || strings.Contains(out, "not in the store") {
		t.Errorf("a start failed:\n%s", out)
	}
	if in := h.Running("web", 1); in.Restarts != 0 {
		t.Errorf("%d restarts", in.Restarts)
	}
}

// TestDiskWatermarks: above the high mark the longest unused images go by themselves, until
// the low one is reached, and no others.
func TestDiskWatermarks(t *testing.T) {
	r := liar(t)
	h := harness.NewHost(t)
	h.SmallDisk(72 << 20)
	h.Config = "gc: {high: 60%, low: 50%, min_age: 0s}\n"
	h.Start()
	var refs []string
	for i := range 3 {
		ref := fmt.Sprintf("app:%d", i+1)
		if _, err := r.Push(ref, unpacked(t, ref, 400+uint64(i), 5<<20)); err != nil {
			t.Fatal(err)
		}
		refs = append(refs, r.Host+"/"+ref)
		h.OK("pull", "-q", refs[i])
	}
	h.Apply("web", sleeper(refs[0])) // the oldest, but in use
	h.Running("web", 1)
	if out := h.OK("image", "list", "-q"); strings.Count(out, "\n") != 3 {
		t.Fatalf("images went below the mark:\n%s", out)
	}
	fillDisk(t, h.Root, 27<<20)
	harness.Eventually(t, 60*time.Second, "the unused image that is the oldest goes", func() bool {
		return !strings.Contains(h.OK("image", "list", "-q"), refs[1])
	})
	if out := h.OK("image", "list", "-q"); !strings.Contains(out, refs[0]) || !strings.Contains(out, refs[2]) {
		t.Errorf("more went than had to:\n%s", out)
	}
	if out := h.OK("events"); !strings.Contains(out, "image_gc") && !strings.Contains(out, "deleted") {
		t.Errorf("no event tells of it:\n%s", out)
	}
	h.OK("exec", "web", "/bin/sh", "-c", "exit 0")
}
