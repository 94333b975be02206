package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// benchArchive makes an archive of files of the given size, 40 in a folder,
// that compresses about as programs and text do.
func benchArchive(b *testing.B, files, size int) []byte {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	r := rand.New(rand.NewPCG(1, 2))
	body := make([]byte, size)
	for i := range files {
		for j := range body {
			body[j] = byte(r.Uint32() & 0x1f)
		}
		if i%40 == 0 {
			_ = tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/", i/40), Typeflag: tar.TypeDir, Mode: 0o755})
		}
		h := &tar.Header{Name: fmt.Sprintf("d%d/f%d", i/40, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)}
		if err := tw.WriteHeader(h); err != nil {
			b.Fatal(err)
		}
		_, _ = tw.Write(body)
	}
	_ = tw.Close()
	return buf.Bytes()
}

func gzipped(p []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write(p)
	_ = w.Close()
	return buf.Bytes()
}

func zstded(p []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(p, nil)
}

// BenchmarkUnpack keeps what it unpacked until the end: on some file systems
// files are made slowly for minutes after many were deleted.
func BenchmarkUnpack(b *testing.B) {
	for _, shape := range []struct {
		name        string
		files, size int
	}{{"small", 10000, 2500}, {"big", 4, 32 << 20}} {
		plain := benchArchive(b, shape.files, shape.size)
		for _, c := range []struct {
			name string
			data []byte
		}{{"plain", plain}, {"gzip", gzipped(plain)}, {"zstd", zstded(plain)}} {
			for _, form := range forms {
				b.Run(shape.name+"/"+c.name+"/"+string(form), func(b *testing.B) {
					b.SetBytes(int64(len(plain)))
					b.ReportAllocs()
					s := newStore(b)
					b.ResetTimer()
					for range b.N {
						if _, _, err := s.add(form, c.data); err != nil {
							b.Fatal(err)
						}
					}
					b.StopTimer()
					b.ReportMetric(float64(shape.files*b.N)/b.Elapsed().Seconds(), "files/s")
				})
			}
		}
	}
}
