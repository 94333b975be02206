package image

import (
	"errors"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/imagetest"
)

// Newer costs one request while nothing has changed, fetches what has, and goes
// on with what is there when nobody answers; always does not.
func TestNewer(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Platform: Platform{OS: "linux", Architecture: "amd64"}})
	build := func(body string) imagetest.Image {
		i := oneFile("f", body)
		i.Platform = v1.Platform{OS: "linux", Architecture: "amd64"}
		return i
	}
	newer := PullOptions{Policy: Newer}
	for _, index := range []bool{false, true} {
		name := "plain:1"
		put := func(body string) {
			push(t, r, name, build(body))
		}
		if index {
			name = "index:1"
			put = func(body string) {
				if _, err := r.PushIndex(name, build(body)); err != nil {
					t.Fatal(err)
				}
			}
		}
		ref := r.Host + "/" + name
		put("1")
		first, err := s.Pull(ctx, ref, newer)
		if err != nil || first.Stale {
			t.Fatal(err)
		}
		before := len(r.Requests("GET"))
		same, err := s.Pull(ctx, ref, newer)
		if err != nil || same.Digest != first.Digest {
			t.Error(err)
		}
		for _, q := range r.Requests("GET")[before:] {
			if q != "GET /v2/" {
				t.Error("asked for what is there:", q)
			}
		}
		put("2")
		second, err := s.Pull(ctx, ref, newer)
		if err != nil || second.Digest == first.Digest || second.Stale {
			t.Error(second, err)
		}
		for _, f := range []imagetest.Fault{{Status: 503}, {Path: "/blobs/", Status: 503}} {
			put("3" + name + f.Path)
			r.Break(f)
			stale, err := s.Pull(ctx, ref, newer)
			if err != nil || stale.Digest != second.Digest || !stale.Stale {
				t.Error(stale.Digest, stale.Stale, err)
			}
			if _, err := s.Pull(ctx, ref, PullOptions{Policy: Always}); !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
			r.Mend()
		}
		r.Break(imagetest.Fault{Path: "/manifests/", Status: 404})
		if _, err := s.Pull(ctx, ref, newer); !errors.Is(err, ErrNotFound) {
			t.Error("the tag is gone:", err)
		}
		r.Mend()
		if _, err := s.Pull(ctx, ref, newer); err != nil {
			t.Error(err)
		}
	}
	assertClean(t, s)
}

// What a digest names is there or not: no policy asks the registry for it again.
func TestLocalDigestNeedsNoNetwork(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{})
	digest := push(t, r, "app:1", oneFile("f", "1"))
	ref := r.Host + "/app@" + digest
	pullOK(t, s, ref)
	r.Close()
	for _, p := range []Policy{Missing, Never, Always, Newer} {
		if img, err := s.Pull(ctx, ref, PullOptions{Policy: p}); err != nil || img.Digest != digest || img.Stale {
			t.Error(p, err)
		}
	}
	if _, err := s.Pull(ctx, r.Host+"/other:1", PullOptions{Policy: Newer}); !errors.Is(err, ErrUnavailable) || !strings.HasPrefix(err.Error(), "resolve ") {
		t.Error(err)
	}
}
