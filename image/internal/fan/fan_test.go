package fan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestEveryReaderSeesEverything(t *testing.T) {
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 5*chunkSize + 17} {
		want := noise(size)
		f := New(2)
		var a, b bytes.Buffer
		done := make(chan error, 2)
		go func() { _, err := io.Copy(&a, f.Reader(0)); done <- err }() // WriteTo
		go func() { _, err := io.Copy(&b, struct{ io.Reader }{f.Reader(1)}); done <- err }()
		if err := f.Run(context.Background(), iotest.HalfReader(bytes.NewReader(want))); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(a.Bytes(), want) || !bytes.Equal(b.Bytes(), want) {
			t.Fatalf("size %d: the readers saw something else", size)
		}
	}
}

func TestSourceErrorReachesReaders(t *testing.T) {
	for _, want := range []error{io.ErrUnexpectedEOF, fmt.Errorf("registry: %w", io.EOF)} {
		for _, asReader := range []bool{false, true} {
			f := New(1)
			go func() {
				_ = f.Run(context.Background(), io.MultiReader(bytes.NewReader(noise(10)), iotest.ErrReader(want)))
			}()
			src := io.Reader(f.Reader(0)) // io.Copy uses WriteTo
			if asReader {
				src = struct{ io.Reader }{src}
			}
			if n, err := io.Copy(io.Discard, src); n != 10 || err != want {
				t.Errorf("got %d bytes and %v, want %v", n, err, want)
			}
		}
	}
}

func TestClosedReaderHoldsNobodyBack(t *testing.T) {
	f := New(2)
	f.Reader(0).Close()
	size := (queueLen + 4) * chunkSize
	go func() { _ = f.Run(context.Background(), bytes.NewReader(noise(size))) }()
	if n, err := io.Copy(io.Discard, f.Reader(1)); n != int64(size) || err != nil {
		t.Fatal(n, err)
	}
}

func TestCancelEndsRun(t *testing.T) {
	f := New(1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Run(ctx, bytes.NewReader(noise(100*chunkSize))); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
