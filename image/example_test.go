package image_test

import (
	"context"
	"fmt"
	"log"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/image/imagetest"
)

// A store in a folder, an image from a registry, and the mounts that make its
// root file system.
func Example() {
	registry := imagetest.Start()
	defer registry.Close()
	_, err := registry.Push("hello:1", imagetest.Image{
		Layers: []imagetest.Layer{
			imagetest.NewLayer(imagetest.Entry{Name: "bin/"}, imagetest.Entry{Name: "bin/hello", Body: "#!hello", Mode: 0o755}),
			imagetest.NewLayer(imagetest.Entry{Name: "etc/"}, imagetest.Entry{Name: "etc/motd", Body: "ahoy\n"}),
		},
		Config: v1.Config{Entrypoint: []string{"/bin/hello"}, Env: []string{"LANG=C"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	root, err := os.MkdirTemp("", "image-example-*")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(root)

	store, err := image.Open(image.Options{Root: root})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	img, err := store.Pull(context.Background(), registry.Host+"/hello:1", image.PullOptions{})
	if err != nil {
		log.Fatal(err)
	}
	mounts, err := store.Prepare(context.Background(), img.Digest, "hello.1", root+"/runs/hello.1", image.PrepareOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(img.Config.Entrypoint, img.Config.Env, len(img.Layers), "layers")
	// Layers that are images come before the root: how many mounts there are
	// depends on what the kernel can do.
	for _, m := range mounts {
		if m.Destination == "/" {
			fmt.Println(m.Type, "mount on", m.Destination)
		}
	}
	// Output:
	// [/bin/hello] [LANG=C] 2 layers
	// overlay mount on /
}
