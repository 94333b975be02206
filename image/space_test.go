package image

import (
	"errors"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/image/internal/disk"
)

func TestUnpackedSize(t *testing.T) {
	for _, c := range []struct {
		mediaType, annotation string
		want                  int64
	}{
		{"application/vnd.oci.image.layer.v1.tar", "", 1000},
		{"application/vnd.oci.image.layer.v1.tar+gzip", "", 2500},
		{"application/vnd.docker.image.rootfs.diff.tar.gzip", "", 2500},
		{"application/vnd.oci.image.layer.v1.tar+zstd", "", 3000},
		{"application/vnd.oci.image.layer.v1.tar+gzip", "1234", 1234},
		{"application/vnd.oci.image.layer.v1.tar+gzip", "-5", 2500},
		{"application/vnd.oci.image.layer.v1.tar+gzip", "99999999999999999", 2500},
	} {
		d := v1.Descriptor{MediaType: types.MediaType(c.mediaType), Size: 1000, Annotations: map[string]string{}}
		if c.annotation != "" {
			d.Annotations[annotationSize] = c.annotation
		}
		if got := unpackedSize(d); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// Pulls that run at the same time do not promise themselves the same room.
func TestRoomIsPromisedOnce(t *testing.T) {
	st := disk.Stat{Total: 10_000, Free: 1_000, Inodes: 1_000, InodesFree: 100}
	r := newRoom("/s", 100, func(string) (disk.Stat, error) { return st, nil })
	first, err := r.claim([]want{{"a", 200, 300}, {"b", 100, 0}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.claim([]want{{"a", 200, 300}}) // shares the layer
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.claim([]want{{"a", 200, 300}, {"c", 100, 201}})
	var e *disk.NoSpaceError
	if !errors.As(err, &e) || e.Need != 301 || e.Fetch != 100 || e.Free != 1_000 || e.Reserve != 100 || e.Claimed != 600 || !errors.Is(err, ErrNoSpace) {
		t.Fatalf("%+v", e)
	}
	first()
	first()
	if _, err := r.claim([]want{{"c", 100, 300}}); err != nil { // b is free, a is not
		t.Error(err)
	}
	if _, err := r.claim([]want{{"d", 1, 0}}); err == nil {
		t.Error("all is promised, yet there was room")
	}
	again()
	if _, err := r.claim([]want{{"d", 500, 0}}); err != nil {
		t.Error(err)
	}
	st.InodesFree = 10 + layerInodes - 1 // a hundredth has to stay
	if _, err := r.claim([]want{{"e", 0, 0}}); !errors.As(err, &e) || e.Inodes != 1_000 || e.InodesFree != st.InodesFree {
		t.Error(err)
	}
}

// When the reserve is touched the youngest layer gives way, and only that one.
func TestYoungestGivesWay(t *testing.T) {
	st := disk.Stat{Total: 10_000, Free: 99}
	r := newRoom("/s", 100, func(string) (disk.Stat, error) { return st, nil })
	old, young := &flight{key: "old"}, &flight{key: "young"}
	r.enter(old, 0)
	r.enter(young, 0)
	if err := r.check(old, 1, 1); err != nil {
		t.Error(err)
	}
	err := r.check(young, 10, 20)
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "30 B needed (10 B to fetch, about 20 B unpacked), 99 B free, 100 B have to stay free") {
		t.Error(err)
	}
	r.leave(young, nil)
	if err := r.check(old, 1, 1); err == nil {
		t.Error("the last one went on")
	}
	r.option = -1
	if err := r.check(old, 1, 1); err != nil {
		t.Error(err)
	}
}

// What does not fit beside the reserve is refused before anything is fetched; if
// the room goes while a layer unpacks, the pull ends and takes all it brought with it.
func TestReserveStaysFree(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Reserve: 1 << 20})
	free := int64(2 << 20)
	s.statfs = func(string) (disk.Stat, error) { return disk.Stat{Total: 1 << 30, Free: free}, nil }
	kept := pullOKImage(t, r, s, "kept:1", oneFile("small", "1"))
	first := imagetest.NewLayer(entry{Name: "a", Body: noise(1000)})
	img := imagetest.Image{Layers: []imagetest.Layer{first, imagetest.NewLayer(entry{Name: "b", Body: noise(400 << 10)})}}
	push(t, r, "app:1", img)
	f := newFront(t, r)

	free = 2<<20 - 1<<19
	_, err := s.Pull(ctx, f.Host+"/app:1", PullOptions{})
	if !errors.Is(err, ErrNoSpace) || !strings.HasPrefix(err.Error(), "fetch "+f.Host+"/app:1: no space left on "+s.root+": ") || !strings.Contains(err.Error(), "1.0 MB have to stay free") {
		t.Error(err)
	}
	if f.of(digestOf(first)).requests != 0 {
		t.Error("fetched all the same")
	}

	free = 4 << 20
	reached, open := gate(r, "/blobs/"+digestOf(img.Layers[1]))
	done := make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{})
		done <- err
	}()
	<-reached
	s.room.mu.Lock()
	free = 1<<20 - 1
	s.room.mu.Unlock()
	if err := <-done; !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "no space left on "+s.root) {
		t.Error(err)
	}
	open()
	assertClean(t, s)
	assertNoPartials(t, s)
	if blobs, err := s.blobs.List(); err != nil || len(blobs) != 3 {
		t.Error("blobs of another image are left:", blobs, err)
	}
	if keys, err := s.layers.List(); err != nil || len(keys) != 1 {
		t.Error("layers of another image are left:", keys, err)
	}
	if _, err := s.Get(kept.Digest); err != nil {
		t.Error(err)
	}
	r.Mend()
	s.room.mu.Lock()
	free = 4 << 20
	s.room.mu.Unlock()
	pullOK(t, s, r.Host+"/app:1")
}

// What is written is asked for: the youngest layer may not take the reserve, an older
// one may, for a moment.
func TestReserveIsNotTaken(t *testing.T) {
	st := disk.Stat{Total: 10_000, Free: 1_000}
	r := newRoom("/s", 100, func(string) (disk.Stat, error) { return st, nil })
	old, young := &flight{key: "old"}, &flight{key: "young"}
	r.enter(old, 0)
	r.enter(young, 0)
	if err := r.take(young, 901); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "901 B needed, 1.0 kB free, 100 B have to stay free") {
		t.Error(err)
	}
	if err := r.take(nil, 901); !errors.Is(err, ErrNoSpace) {
		t.Error("a repair took the reserve:", err)
	}
	for f, n := range map[*flight]int64{young: 900, old: 1000} {
		if err := r.take(f, n); err != nil {
			t.Error(f.key, err)
		}
	}
	if err := r.take(old, 1001); !errors.Is(err, ErrNoSpace) {
		t.Error(err)
	}
}

// A layer that unpacks to more than was estimated ends before it takes the reserve. The
// next try knows: it asks for all of it at once, before anything is fetched.
func TestEstimateLearns(t *testing.T) {
	r, s := newRegistry(t), newStore(t, Options{Reserve: 1 << 20})
	free := int64(6 << 20)
	s.statfs = func(string) (disk.Stat, error) { return disk.Stat{Total: 1 << 30, Free: free}, nil }
	l := imagetest.NewLayer(entry{Name: "a", Body: strings.Repeat("x", 4<<20)}, entry{Name: "b", Body: strings.Repeat("y", 8<<20)})
	push(t, r, "app:1", imagetest.Image{Layers: []imagetest.Layer{l}})
	f := newFront(t, r)
	_, err := s.Pull(ctx, f.Host+"/app:1", PullOptions{})
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "8.4 MB needed, 6.3 MB free, 1.0 MB have to stay free") {
		t.Error(err)
	}
	if keys, err := s.layers.List(); err != nil || len(keys) > 0 {
		t.Error("left:", keys, err)
	}
	before := f.of(digestOf(l)).requests
	_, err = s.Pull(ctx, f.Host+"/app:1", PullOptions{})
	if need, short := SpaceNeeded(err); !short || need < 12<<20 || need > 13<<20 {
		t.Error(need, err)
	}
	if f.of(digestOf(l)).requests != before {
		t.Error("fetched all the same")
	}
	free = 64 << 20
	pullOK(t, s, f.Host+"/app:1")
	if len(s.room.turned) > 0 {
		t.Error("remembered for ever:", s.room.turned)
	}
}
