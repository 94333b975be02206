package supervisor_test

import (
	"context"
	"fmt"
	"log"

	"github.com/wherry-run/wherry/supervisor"
	"github.com/wherry-run/wherry/supervisor/api"
)

// A program that runs a unit and takes its container with it at its end. It
// needs root, a keeper and a registry, so it is compiled here and not run;
// kernel_test.go runs the same calls.
func Example() {
	sup, err := supervisor.New(supervisor.Options{
		Root:       "/var/lib/agent/wherry",
		RunDir:     "/run/agent/wherry",
		Keeper:     "/usr/lib/wherry/wherry-keeper",
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
}
