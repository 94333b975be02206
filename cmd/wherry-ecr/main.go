// Command wherry-ecr gets one token of an Amazon ECR registry and ends. The daemon
// starts it, about twice a day for each registry that it pulls from: it carries the AWS
// SDK, which would make every wherry command slower to start. It reads a question
// from standard input; AWS's default chain of credentials is its environment's.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/wherry-run/wherry/image/auth/ecr"
	"github.com/wherry-run/wherry/image/auth/ecr/sdk"
)

// patience is longer than the keychain's: it is for whoever starts this by hand.
const patience = time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// The daemon has times of its own.
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}}))
	if err := ecr.Serve(ctx, sdk.Fetch(log), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "wherry-ecr:", err)
		os.Exit(1)
	}
}
