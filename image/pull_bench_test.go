package image

import (
	"context"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/imagetest"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// BenchmarkPipeline is a layer from its blob to what Prepare needs, in either form:
// digests, decompression, unpacking and the sync, without a registry.
func BenchmarkPipeline(b *testing.B) {
	var files []entry
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 200)
	for i := range 4000 {
		files = append(files, entry{Name: fmt.Sprintf("d%d/f%d", i/40, i), Body: text[i%100:] + noise(4000)[i%1000:]})
	}
	files = append(files, entry{Name: "large", Body: strings.Repeat(noise(1<<20)+strings.Repeat(text, 50), 8)})
	tar := imagetest.Archive(files...)
	for _, form := range []Form{Folder, EROFS} {
		for _, c := range []imagetest.Compression{imagetest.Gzip, imagetest.Zstd} {
			b.Run(fmt.Sprintf("%s/%s", form, c), func(b *testing.B) {
				benchPipeline(b, form, imagetest.Layer{Tar: tar, Compression: c})
			})
		}
	}
}

func benchPipeline(b *testing.B, form Form, l imagetest.Layer) {
	s, err := Open(Options{Root: b.TempDir(), Form: form})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	diffID, _, err := v1.SHA256(strings.NewReader(string(l.Tar)))
	if err != nil {
		b.Fatal(err)
	}
	hash, size, err := v1.SHA256(strings.NewReader(string(l.Blob())))
	if err != nil {
		b.Fatal(err)
	}
	j := layerJob{desc: v1.Descriptor{Digest: hash, Size: size}, diffID: diffID.String(), chain: diffID.String()}
	if err := s.blobs.Put(hash.String(), l.Blob()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(l.Tar)))
	for b.Loop() {
		f := s.flights.join(ctx, j.key(), func(news) {}, func(ctx context.Context, f *flight) error {
			return s.fly(ctx, f, nil, j)
		})
		if err := f.wait(ctx); err != nil {
			b.Fatal(err)
		}
		if err := s.flights.leave(f); err != nil {
			b.Fatal(err)
		}
		if _, ok := s.layers.Find(j.diffID, j.chain); ok {
			if _, err := s.layers.Remove(layer.Key(j.diffID)); err != nil {
				b.Fatal(err)
			}
		}
	}
}
