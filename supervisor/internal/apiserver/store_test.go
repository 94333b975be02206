package apiserver_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// An archive of any size goes through, with the daemon holding little of it.
func TestLoadStreams(t *testing.T) {
	d, c := start(t)
	const size = 64 << 20 // four times what other bodies may have
	archive := io.MultiReader(strings.NewReader("image app:1\n"), io.LimitReader(lines{}, size))
	var steps []string
	images, err := c.Load(context.Background(), archive, api.LoadRequest{}, func(p api.Progress) { steps = append(steps, p.Step) })
	if err != nil || len(images) != 1 || images[0].Names[0] != "app:1" {
		t.Fatal(images, err)
	}
	if calls := d.Calls(); len(calls) != 1 || !strings.HasPrefix(calls[0], "Load 67108876 bytes") {
		t.Errorf("calls %q", calls)
	}
	if len(steps) == 0 {
		t.Error("no progress")
	}
}

// lines is text without end.
type lines struct{}

func (lines) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
		if i%100 == 99 {
			p[i] = '\n'
		}
	}
	return len(p), nil
}

func TestLoadFails(t *testing.T) {
	_, c := start(t)
	ctx := context.Background()
	broken := errors.New("the disk is gone")
	for name, k := range map[string]struct {
		archive io.Reader
		r       api.LoadRequest
		want    error
		text    string
	}{
		"no archive":    {strings.NewReader("hello\n"), api.LoadRequest{}, api.ErrCorrupt, "neither"},
		"in the middle": {strings.NewReader("image a\ntorn\n"), api.LoadRequest{}, api.ErrCorrupt, "it ends in the middle"},
		"our own end":   {io.MultiReader(strings.NewReader("image a\n"), failure{broken}), api.LoadRequest{}, broken, "the disk is gone"},
		"platform":      {strings.NewReader(""), api.LoadRequest{Platform: "arm"}, api.ErrInvalid, "os/architecture"},
		"folder":        {nil, api.LoadRequest{Folder: "here"}, api.ErrInvalid, "not an absolute path"},
	} {
		_, err := c.Load(ctx, k.archive, k.r, nil)
		if !errors.Is(err, k.want) || !strings.Contains(err.Error(), k.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type failure struct{ err error }

func (f failure) Read([]byte) (int, error) { return 0, f.err }

func TestSave(t *testing.T) {
	d, c := start(t)
	d.AddImage(api.Image{Names: []string{"a:1"}, Digest: "sha256:aaaa"})
	ctx := context.Background()
	var out bytes.Buffer
	if err := c.Save(ctx, &out, api.SaveRequest{Refs: []string{"a:1"}}); err != nil || out.String() != "image a:1\n" {
		t.Fatalf("%q, %v", out.String(), err)
	}
	// What comes up in the middle is an error too, though the answer was 200.
	out.Reset()
	err := c.Save(ctx, &out, api.SaveRequest{Refs: []string{"a:1", "torn"}})
	if !errors.Is(err, api.ErrCorrupt) || !strings.Contains(err.Error(), "layer") || out.Len() == 0 {
		t.Errorf("in the middle: %v after %q", err, out.String())
	}
	for name, r := range map[string]api.SaveRequest{
		"nothing": {}, "format": {Refs: []string{"a:1"}, Format: "zip"}, "folder": {Refs: []string{"a:1"}, Folder: "here"},
		"archive in a folder": {Refs: []string{"a:1"}, Folder: "/tmp/x", Format: "oci-archive"},
	} {
		if err := c.Save(ctx, io.Discard, r); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Save(ctx, io.Discard, api.SaveRequest{Refs: []string{"nope"}}); !errors.Is(err, api.ErrNoSuchImage) {
		t.Errorf("no such image: %v", err)
	}
}

// A pull goes on without its caller, and ends when somebody says so.
func TestAbort(t *testing.T) {
	d, c := start(t)
	ctx, leave := context.WithCancel(context.Background())
	var id string
	_, err := c.Pull(ctx, api.PullRequest{Ref: "endless"}, func(op string) { id = op; leave() }, nil)
	if !errors.Is(err, context.Canceled) || id == "" {
		t.Fatal(id, err)
	}
	ctx = context.Background()
	if all, err := c.Operations(ctx); err != nil || len(all) != 1 || all[0].ID != id || all[0].Object != "endless" {
		t.Fatalf("%+v, %v", all, err)
	}
	ended := make(chan error, 1)
	begun := make(chan string, 1)
	go func() {
		_, err := c.Pull(ctx, api.PullRequest{Ref: "endless"}, func(op string) { begun <- op }, nil)
		ended <- err
	}()
	a, err := c.Abort(ctx, <-begun)
	if err != nil || !a.GoesOn {
		t.Errorf("%+v, %v", a, err)
	}
	if err := <-ended; !errors.Is(err, api.ErrAborted) || !strings.Contains(err.Error(), "aborted by ") {
		t.Errorf("the aborted pull: %v", err)
	}
	if a, err := c.Abort(ctx, id); err != nil || a.GoesOn {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := c.Abort(ctx, id); !errors.Is(err, api.ErrNoSuchOperation) {
		t.Errorf("once more: %v", err)
	}
	if n := len(d.Operations()); n != 0 {
		t.Errorf("%d left", n)
	}
}

func TestVerifyDamageIsAFinding(t *testing.T) {
	d, c := start(t)
	d.AddImage(api.Image{Names: []string{"a:1"}, Digest: "sha256:aaaa"})
	d.AddImage(api.Image{Names: []string{"b:1"}, Digest: "sha256:bbbb"})
	d.Break("sha256:bbbb", image.Damage{Layer: "sha256:1", Path: "/x", What: "missing"})
	found, err := c.VerifyImages(context.Background(), api.VerifyRequest{}, nil)
	if err != nil || len(found) != 2 || len(found[0].Damage) != 0 || len(found[1].Damage) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
	if _, err := c.VerifyImages(context.Background(), api.VerifyRequest{Refs: []string{"a:1", "nope"}}, nil); !errors.Is(err, api.ErrNoSuchImage) {
		t.Errorf("no such image: %v", err)
	}
}
