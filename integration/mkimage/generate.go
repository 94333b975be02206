package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// generate writes layers for measurements to DIR/NAME.N.tar, the same ones on
// every machine, and returns their files.
func generate(what, dir string) (files []string, err error) {
	layer := func(fill func(w *tar.Writer) error) {
		if err != nil {
			return
		}
		file := fmt.Sprintf("%s/%s.%d.tar", dir, what, len(files))
		files = append(files, file)
		err = writeTar(file, fill)
	}
	switch what {
	case "manyfiles":
		layer(manyFiles)
	case "big":
		for i := range 8 {
			layer(func(w *tar.Writer) error { return bigFiles(w, i) })
		}
	default:
		return nil, fmt.Errorf("cannot generate %q: want manyfiles or big", what)
	}
	return files, err
}

func writeTar(file string, fill func(*tar.Writer) error) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(buf)
	return errors.Join(fill(w), w.Close(), buf.Flush(), f.Close())
}

var stamp = time.Unix(1700000000, 0)

// manyFiles is like a tree of npm packages: 50,000 source files in 6,000
// folders, their sizes spread widely around a kilobyte.
func manyFiles(w *tar.Writer) error {
	r := rand.New(rand.NewPCG(1, 2))
	for pkg := range 600 {
		for sub := range 10 {
			dir := fmt.Sprintf("app/node_modules/package-%03d/lib/part%d/", pkg, sub)
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: stamp}); err != nil {
				return err
			}
			for i := range 8 + (pkg+sub)%2 {
				body := source(r, int(math.Min(200e3, math.Exp(6.6+1.3*r.NormFloat64()))))
				if err := file(w, fmt.Sprintf("%smodule%d.js", dir, i), int64(len(body)), bytes.NewReader(body)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

var words = strings.Fields("const let function return export import default from if else for while of in new this null undefined true false require module exports Object prototype length push map filter reduce")

// source is text that compresses like program text.
func source(r *rand.Rand, size int) []byte {
	var b bytes.Buffer
	for b.Len() < size {
		fmt.Fprintf(&b, "%s %s%d(%s, %q) {\n  %s.%s = %d;\n}\n", pick(r), pick(r), r.IntN(1000), pick(r), pick(r), pick(r), pick(r), r.IntN(1<<16))
	}
	return b.Bytes()[:size]
}

func pick(r *rand.Rand) string { return words[r.IntN(len(words))] }

// bigFiles is 128 MiB in 16 files; from layer to layer noise, text, half noise
// and repetition.
func bigFiles(w *tar.Writer, layer int) error {
	r := rand.New(rand.NewPCG(uint64(layer), 3))
	const size, files = 8 << 20, 16
	for i := range files {
		if err := file(w, fmt.Sprintf("data/l%df%d", layer, i), size, bytes.NewReader(bigContent(r, layer%4, size))); err != nil {
			return err
		}
	}
	return nil
}

func bigContent(r *rand.Rand, kind, size int) []byte {
	if kind == 1 {
		return source(r, size)
	}
	b := make([]byte, size)
	for i := 0; i < size; i += 8 {
		v := r.Uint64()
		switch kind {
		case 2:
			v &= 0x0f0f0f0f0f0f0f0f
		case 3:
			if i >= 4096 {
				copy(b[i:], b[i%4096:i%4096+8])
				continue
			}
		}
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b
}

func file(w *tar.Writer, name string, size int64, content io.Reader) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: stamp}); err != nil {
		return err
	}
	_, err := io.Copy(w, content)
	return err
}
