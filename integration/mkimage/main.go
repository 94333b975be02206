// Mkimage writes an OCI image layout made of tar files.
//
//	mkimage -out DIR [flags] LAYER...
//
// A LAYER is a tar file, or BASE.tar:FULL.tar for what FULL has and BASE has
// not: so two root file systems of Debian packages share their common part.
// -generate adds layers made for measurements: manyfiles or big.
// The image's reference name is "latest".
package main

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	var (
		out        = flag.String("out", "", "the layout's folder")
		entrypoint = flag.String("entrypoint", "", "words of the entrypoint")
		cmd        = flag.String("cmd", "", "words of the command")
		workdir    = flag.String("workdir", "", "working folder")
		user       = flag.String("user", "", "user")
		stop       = flag.String("stop-signal", "", "stop signal")
		expose     = flag.String("expose", "", "an exposed port")
		volume     = flag.String("volume", "", "a volume")
	)
	made := flag.String("generate", "", "add generated layers: manyfiles or big")
	flag.Parse()
	cfg := v1.Config{
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Entrypoint: strings.Fields(*entrypoint),
		Cmd:        strings.Fields(*cmd),
		WorkingDir: *workdir, User: *user, StopSignal: *stop,
	}
	if *expose != "" {
		cfg.ExposedPorts = map[string]struct{}{*expose: {}}
	}
	if *volume != "" {
		cfg.Volumes = map[string]struct{}{*volume: {}}
	}
	if err := write(*out, cfg, *made, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "error: mkimage:", err)
		os.Exit(1)
	}
}

func write(out string, cfg v1.Config, made string, files []string) error {
	if out == "" || len(files) == 0 {
		return errors.New("needs -out and at least one layer")
	}
	tmp, err := os.MkdirTemp("", "mkimage")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if made != "" {
		layers, err := generate(made, tmp)
		if err != nil {
			return err
		}
		files = append(files, layers...)
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for i, f := range files {
		if base, full, ok := strings.Cut(f, ":"); ok {
			f = path.Join(tmp, fmt.Sprintf("%d.tar", i))
			if err := difference(base, full, f); err != nil {
				return err
			}
		}
		l, err := tarball.LayerFromFile(f, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return fmt.Errorf("layer %s: %w", f, err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return fmt.Errorf("layer %s: %w", f, err)
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		return err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Config = "linux", runtime.GOARCH, cfg
	c.Created = v1.Time{Time: time.Unix(1700000000, 0).UTC()}
	if img, err = mutate.ConfigFile(img, c); err != nil {
		return err
	}
	p, err := layout.Write(out, empty.Index)
	if err != nil {
		return err
	}
	return p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "latest"}))
}

// difference writes to out the entries of full that base lacks or has otherwise.
func difference(base, full, out string) error {
	have := map[string]string{}
	if err := each(base, func(h *tar.Header, body []byte) error {
		have[path.Clean(h.Name)] = fingerprint(h, body)
		return nil
	}); err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := each(full, func(h *tar.Header, body []byte) error {
		if have[path.Clean(h.Name)] == fingerprint(h, body) {
			return nil
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(body)
		return err
	}); err != nil {
		return err
	}
	return errors.Join(w.Close(), f.Close())
}

// fingerprint tells entries apart; times do not count, or every file would differ.
func fingerprint(h *tar.Header, body []byte) string {
	return fmt.Sprintf("%c %o %d:%d %s %d:%d %x", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.Devmajor, h.Devminor, sha256.Sum256(body))
}

func each(file string, do func(*tar.Header, []byte) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", file, h.Name, err)
		}
		if err := do(h, body); err != nil {
			return fmt.Errorf("%s: %s: %w", file, h.Name, err)
		}
	}
}
