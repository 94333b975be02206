// Command wherry-verify judges one keyless image signature and ends. The daemon
// starts it when a rule of its trust policy names an identity: it carries Sigstore's
// library, which would make every wherry command slower to start. It reads a
// keyless.Request from standard input and touches neither disk nor network.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/wherry-run/wherry/image/keyless"
	"github.com/wherry-run/wherry/image/keyless/sigstore"
)

func main() {
	if err := keyless.Serve(context.Background(), sigstore.New(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "wherry-verify:", err)
		os.Exit(1)
	}
}
