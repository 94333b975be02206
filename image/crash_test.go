package image

import (
	"os"
	"os/exec"
	"testing"
)

const crashEnv = "WHERRY_IMAGE_CRASH_TEST" // set in the process to be killed

// TestKilledProcess is the process that TestKilledPull kills.
func TestKilledProcess(t *testing.T) {
	root := os.Getenv(crashEnv)
	if root == "" {
		t.Skip("runs only as the child of TestKilledPull")
	}
	s, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(ctx, os.Getenv(crashEnv+"_REF"), PullOptions{})
	t.Fatal("not killed in time:", err)
}

// A process killed in the middle of a pull leaves nothing that the next one
// trips over: what was whole is used, the rest is removed.
func TestKilledPull(t *testing.T) {
	r, root := newRegistry(t), t.TempDir()
	first, second := oneFile("a", noise(100000)).Layers[0], oneFile("b", noise(1<<20)).Layers[0]
	i := oneFile("a", "")
	i.Layers[0] = first
	push(t, r, "first:1", i)
	i.Layers = append(i.Layers, second)
	push(t, r, "app:1", i)
	s := newStore(t, Options{Root: root})
	pullOK(t, s, r.Host+"/first:1")
	s.Close()

	reached, open := gate(r, "/blobs/"+digestOf(second))
	child := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
	child.Env = append(os.Environ(), crashEnv+"="+root, crashEnv+"_REF="+r.Host+"/app:1")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	if _, err := Open(Options{Root: root}); err == nil {
		t.Error("the child's store could be opened")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	open()
	r.Mend()

	s = newStore(t, Options{Root: root})
	assertClean(t, s)
	if all, err := s.List(); err != nil || len(all) != 1 {
		t.Error(all, err)
	}
	pullOK(t, s, r.Host+"/app:1")
	if n := len(getRequests(r, digestOf(first))); n != 1 {
		t.Errorf("the layer that was there was fetched %d times", n)
	}
}
