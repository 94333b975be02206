// Wherry-keeper is the process that parents wherry's containers. It is started
// by the daemon, or by systemd, and outlives both. See runtime/keeper.
package main

import (
	"os"

	build "github.com/wherry-run/wherry/cmd/internal/version"
	"github.com/wherry-run/wherry/runtime/keeper"
)

// version is set by the build: -ldflags "-X main.version=...".
var version string

// The version is worked out only if somebody asks: this program is executed again for every start of a container.
func main() { os.Exit(keeper.Main(os.Args[1:], func() string { return build.Text(version) })) }
