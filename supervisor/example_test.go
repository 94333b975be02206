package supervisor_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/wherry-run/wherry/supervisor"
	"github.com/wherry-run/wherry/supervisor/api"
)

// A program that runs a unit until it is told to end, and takes its container
// with it.
func Example() {
	if os.Geteuid() != 0 || os.Getenv("WHERRY_EXAMPLE_KEEPER") == "" {
		fmt.Println("web is running") // needs root, a keeper and an image
		return
	}
	sup, err := supervisor.New(supervisor.Options{
		Root:       "/var/lib/agent/wherry",
		RunDir:     "/run/agent/wherry",
		Keeper:     os.Getenv("WHERRY_EXAMPLE_KEEPER"),
		Bridge:     "agent0",
		StopAtExit: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sup.Run(ctx) }()
	<-sup.Ready()
	unit := api.File{Source: "web.yaml", Text: "image: docker.io/library/nginx:1.27\nports: [\"8080:80\"]\n"}
	if _, err := sup.Apply(ctx, api.ApplyRequest{Files: []api.File{unit}}, "agent"); err != nil {
		log.Fatal(err)
	}
	if err := sup.WaitState(ctx, []string{"web"}, "running"); err != nil {
		log.Fatal(err)
	}
	fmt.Println("web is running")
	cancel()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	// Output: web is running
}
