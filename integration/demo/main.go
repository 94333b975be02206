// Demo is the cargo of scripts/demo: a small web server, and a registry in
// memory that serves an image of it.
//
//	demo registry ADDRESS   serve the image ADDRESS/web:latest until killed
//	demo web                what the image runs: a page on port 8080
//	demo true               nothing, well: something to exec, as the image holds no other program
//	demo fill FILE MIB      write a file of that size to the disk
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "web":
		err = web()
	case len(os.Args) == 3 && os.Args[1] == "registry":
		err = serveRegistry(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "true":
	case len(os.Args) == 4 && os.Args[1] == "fill":
		err = fill(os.Args[2], os.Args[3])
	default:
		err = fmt.Errorf("usage: demo registry ADDRESS | demo web | demo true | demo fill FILE MIB")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func web() error {
	host, _ := os.Hostname()
	start := time.Now()
	fmt.Println("listening on :8080")
	return http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("%s %s from %s\n", r.Method, r.URL.Path, r.RemoteAddr)
		fmt.Fprintf(w, "hello from %s, up for %v\n", host, time.Since(start).Round(time.Millisecond))
	}))
}

func fill(file, mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	for range n {
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

func serveRegistry(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	quiet := registry.Logger(log.New(io.Discard, "", 0))
	served := make(chan error, 1)
	go func() { served <- http.Serve(l, registry.New(quiet)) }()
	img, err := selfImage()
	if err != nil {
		return err
	}
	tag, err := name.NewTag(l.Addr().String()+"/web:latest", name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(tag, img); err != nil {
		return err
	}
	fmt.Println(tag)
	return <-served
}

// selfImage is an image of one layer with this very program in it.
func selfImage() (v1.Image, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "web", Mode: 0o755, Size: int64(len(self)), Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := w.Write(self); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", runtime.GOARCH
	c.Config = v1.Config{Entrypoint: []string{"/web", "web"}, User: "65534:65534"}
	return mutate.ConfigFile(img, c)
}
