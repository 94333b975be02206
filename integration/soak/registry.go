package main

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/wherry-run/wherry/image/imagetest"
)

// images are the names that units use; what a name means changes.
var images = []string{"a", "b", "c", "d", "e", "f"}

// variants is how many contents a name may have. They are made once: the soak itself shall not grow.
const variants = 8

// shelf is a registry in memory.
type shelf struct {
	*imagetest.Registry
	base  imagetest.Image
	extra []imagetest.Layer
}

func newShelf() (*shelf, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("busybox is not installed: scripts/setup test")
	}
	base, err := imagetest.Busybox(busybox)
	if err != nil {
		return nil, err
	}
	s := &shelf{Registry: imagetest.Start(), base: base}
	for v := range variants {
		r := newRand(uint64(v), 7)
		noise := make([]byte, 256<<10)
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		s.extra = append(s.extra, imagetest.NewLayer(
			imagetest.Entry{Name: "etc/variant", Body: fmt.Sprintf("%d\n", v)},
			imagetest.Entry{Name: "opt/"}, imagetest.Entry{Name: "opt/noise", Body: string(noise)},
			imagetest.Entry{Name: "opt/text", Body: strings.Repeat(fmt.Sprintf("line of %d\n", v), 20000)}))
	}
	for i, name := range images {
		if err := s.retag(name, i%variants); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// ref is the name of an image as units write it.
func (s *shelf) ref(name string) string { return s.Host + "/soak/" + name + ":latest" }

// retag gives a name another content.
func (s *shelf) retag(name string, variant int) error {
	i := s.base
	i.Layers = append(i.Layers[:len(i.Layers):len(i.Layers)], s.extra[variant])
	_, err := s.Push("soak/"+name+":latest", i)
	return err
}
