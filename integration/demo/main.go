// Demo is the cargo of scripts/demo: a small web server, and a registry in
// memory that serves an image of it.
//
//	demo registry ADDRESS   serve the image ADDRESS/web:latest until killed
//	demo registry ADDRESS BUSYBOX   and ADDRESS/busybox:latest, two layers made of that static program
//	demo web                what the image runs: a page on port 8080
//	demo true               nothing, well: something to exec, as the image holds no other program
//	demo fill FILE MIB      write a file of that size to the disk
//	demo files FOLDER...    do with files there what programs do, and tell
//	demo ids                who it runs as
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
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
		err = serveRegistry(os.Args[2], "")
	case len(os.Args) == 4 && os.Args[1] == "registry":
		err = serveRegistry(os.Args[2], os.Args[3])
	case len(os.Args) == 2 && os.Args[1] == "true":
	case len(os.Args) == 4 && os.Args[1] == "fill":
		err = fill(os.Args[2], os.Args[3])
	case len(os.Args) > 2 && os.Args[1] == "files":
		err = files(os.Args[2:])
	case len(os.Args) == 2 && os.Args[1] == "ids":
		err = ids()
	default:
		err = fmt.Errorf("usage: demo registry ADDRESS [BUSYBOX] | demo web | demo true | demo fill FILE MIB | demo files FOLDER... | demo ids")
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

func serveRegistry(addr, busybox string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	served := make(chan error, 2)
	go func() { served <- http.Serve(inner, store) }()
	go func() { served <- http.Serve(l, webFirst(store, inner.Addr().String())) }()
	if busybox != "" {
		img, err := busyboxImage(busybox)
		if err != nil {
			return err
		}
		if err := push(l.Addr().String()+"/busybox:latest", img); err != nil {
			return err
		}
	}
	fmt.Println(l.Addr().String() + "/web:latest")
	return <-served
}

// webFirst makes the image web when it is first asked for: in a slow machine that takes seconds, and
// most who want the other one do not want this one.
func webFirst(store http.Handler, inner string) http.Handler {
	made := sync.OnceValue(func() error {
		img, err := selfImage()
		if err != nil {
			return err
		}
		tag, err := name.NewTag(inner+"/web:latest", name.Insecure)
		if err != nil {
			return err
		}
		return remote.Write(tag, img)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/web/") {
			if err := made(); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		store.ServeHTTP(w, r)
	})
}

func push(ref string, img v1.Image) error {
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(tag, img); err != nil {
		return err
	}
	fmt.Println(tag)
	return nil
}

// selfImage is an image of one layer with this very program in it.
func selfImage() (v1.Image, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	return image(v1.Config{Entrypoint: []string{"/web", "web"}, User: "65534:65534"}, []file{{name: "web", mode: 0o755, content: self}})
}

// busyboxImage has what a shell needs, and files of several owners in both of its layers.
func busyboxImage(program string) (v1.Image, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", program, err)
	}
	base := []file{
		{name: "bin/", mode: 0o755}, {name: "etc/", mode: 0o755}, {name: "root/", mode: 0o700},
		{name: "tmp/", mode: 0o1777}, {name: "home/", mode: 0o755}, {name: "home/app/", mode: 0o750, owner: 1000},
		{name: "bin/busybox", mode: 0o755, content: content},
		{name: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")},
		{name: "etc/group", mode: 0o644, content: []byte("root:x:0:\napp:x:1000:\n")},
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			base = append(base, file{name: "bin/" + applet, mode: 0o777, link: "busybox"})
		}
	}
	top := []file{
		{name: "home/app/", mode: 0o750, owner: 1000},
		{name: "home/app/own", mode: 0o600, owner: 1000, content: []byte("of app\n")},
		{name: "etc/of-root", mode: 0o600, content: []byte("of root\n")},
		{name: "opt/able/", mode: 0o755}, {name: "opt/able/chown", mode: 0o755, content: content, attr: map[string]string{"security.capability": string(capChown())}},
		{name: "opt/setuid", mode: 0o4755, content: []byte("#!/bin/sh\n")},
	}
	return image(v1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}}, base, top)
}

type file struct {
	name    string // ends with a slash: a folder
	mode    int64
	owner   int // also the group
	link    string
	content []byte
	attr    map[string]string
}

// image has the layers, and starts as config says.
func image(config v1.Config, layers ...[]file) (v1.Image, error) {
	img := v1.Image(empty.Image)
	for _, files := range layers {
		b, err := archive(files)
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
			tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching) // it would be compressed three times, in a slow machine
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", runtime.GOARCH
	c.Config = config
	return mutate.ConfigFile(img, c)
}

func archive(files []file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.owner, Gid: f.owner, Size: int64(len(f.content)), Linkname: f.link, Typeflag: tar.TypeReg}
		switch {
		case f.link != "":
			h.Typeflag = tar.TypeSymlink
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		for k, v := range f.attr {
			h.PAXRecords = map[string]string{"SCHILY.xattr." + k: v}
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}
