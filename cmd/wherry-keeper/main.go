// Wherry-keeper is the process that parents wherry's containers. It is started
// by the daemon, or by systemd, and outlives both. See runtime/keeper.
package main

import (
	"os"

	"github.com/wherry-run/wherry/runtime/keeper"
)

func main() { os.Exit(keeper.Main(os.Args[1:])) }
