package runtime_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-run/wherry/runtime"
)

// Example runs one command in a container whose root file system is a folder
// with a static busybox. It needs root, and so is only compiled with the tests.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "wherry-example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	rt, err := runtime.Open(ctx, runtime.Options{
		Root:   filepath.Join(dir, "root"),
		RunDir: filepath.Join(dir, "run"),
		Keeper: "/usr/lib/wherry/wherry-keeper",
	})
	if err != nil {
		panic(err)
	}
	defer rt.StopKeeper(ctx)

	c := runtime.Config{
		Unit: "hello", Instance: "hello.1", Run: "hello.1-0001", Container: "app",
		Spec:   testSpec("echo", "hello from a container"), // runtime/spec builds one from an image
		Rootfs: []specs.Mount{{Destination: "/", Type: "bind", Source: "/srv/busybox", Options: []string{"rbind", "ro"}}},
		Init:   true,
		Log:    runtime.LogConfig{Path: filepath.Join(dir, "hello.log")},
	}
	if _, err := rt.Start(ctx, c); err != nil {
		panic(err)
	}
	exit, err := rt.Wait(ctx, c.ID())
	if err != nil {
		panic(err)
	}
	for line, err := range runtime.ReadLog(ctx, c.Log.Path, runtime.LogOptions{}) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\n", line.Text)
	}
	fmt.Println("code", exit.Code)
	rt.Remove(ctx, c.ID())
}
