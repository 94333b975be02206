// Package bundle names the files and folders of containers, on disk and in the
// run folder, and writes them so that a crash leaves the old content or the
// new one.
//
// It does not know what the files mean and never deletes anything by itself.
//
// # On disk
//
//	ROOT/keeper/init-HASH              copy of the keeper's binary that containers run as their init
//	ROOT/runs/RUN/CONTAINER/rootfs/    mount point of the root file system; empty on the host
//
//	RUN_DIR/keeper.sock                the keeper's socket
//	RUN_DIR/keeper.lock                held by the one keeper
//	RUN_DIR/keeper.log                 what the keeper has to say
//	RUN_DIR/containers/ID.json         the keeper's state of one container
//	RUN_DIR/containers/ID.exit         the exit record, written by the container's init
//	RUN_DIR/containers/ID=KEY.exec     what is known of a process that was exec'd in it
//	RUN_DIR/containers/ID.stdout       named pipe of its output
//	RUN_DIR/containers/ID.stderr
//	RUN_DIR/containers/ID.stdin        and of its input, if it has one
//	RUN_DIR/ns/RUN.json                the keeper's state of the namespaces that a run shares
//	RUN_DIR/ns/RUN/                    where they are mounted
//	RUN_DIR/rootfs/                    where root file systems of user namespaces are mounted; empty on the host
//	RUN_DIR/libcontainer/ID/           libcontainer's own state
//	RUN_DIR/seccomp/HASH.bpf           compiled seccomp filters
package bundle
