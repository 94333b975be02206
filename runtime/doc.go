// Package runtime makes containers exist and says truthfully what became of
// them. It does not decide whether one should exist, pulls no images and
// configures no networks.
//
// The work is done by another process, the keeper (runtime/keeper), because it
// must outlive whoever asked for it: it parents the containers, copies their
// output to log files and records how they end. This package is pure Go and
// only speaks the keeper's protocol. It starts the keeper when none answers,
// and again when one dies, or waits for the service manager that runs it.
//
// Read [Runtime] first, then [Config] and [Status].
//
// # The life of a container
//
//	Start → Creating → Running → Exited → Remove
//
// A start that fails leaves nothing and has no status. An exited container is
// remembered until Remove, whoever dies in between.
//
// # What survives what
//
//   - The caller dies: nothing happens to the containers. The next one opens a
//     Runtime on the same folders and asks List.
//   - The keeper dies: the containers run on, their output waits in pipes that
//     they hold open themselves. The next keeper adopts them. Calls under way that
//     cannot be repeated give ErrKeeper.
//   - The host reboots: the run folder is gone, and with it all containers.
//
// Where everything lies is told by the package internal/bundle.
package runtime
