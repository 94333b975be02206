// Package cdi answers: what does a device of the Container Device Interface mean
// for a container?
//
// Vendors describe their devices (GPUs, mostly) in files of /etc/cdi and
// /var/run/cdi: which device nodes, mounts, variables and hooks a container needs
// for "nvidia.com/gpu=0". [Registry.Apply] reads these files when a container is
// made and edits its specification; nothing is watched or kept.
//
// It is a small reader of its own because the reference implementation brings a
// file watcher, a second YAML library and a generator of specifications along,
// into a daemon that needs one function of it.
//
// What a file asks for and we do not do (Intel RDT, moving network devices) is
// an error: half a device is worse than none. Hooks are the vendor's programs,
// run by libcontainer on the host as for any other runtime; so the files must
// belong to root alone, or they are refused.
//
// Read first: [Registry], [Edits].
package cdi
