// Package erofs answers: how is a tree of files one read-only image that the
// kernel mounts?
//
// It writes and reads the plain part of EROFS: no compression, one device, blocks
// of 4 KiB. It mounts nothing and knows no archives and no layers.
//
// Read first: Writer (data.go, layout.go) and Reader (reader.go).
//
// # On disk
//
//	block 0    superblock at 1024; written last
//	data       of regular files, in the order in which they were written
//	metadata   inodes with attributes, targets of links, small folders, the last
//	           bytes of small files; then the blocks of larger folders
//
// The format is that of the kernel's fs/erofs/erofs_fs.h. Inodes are the extended
// ones (owners of 32 bits, times to the nanosecond). A file without holes is one
// run of blocks; one with holes has a list of chunks, which takes Linux 5.15.
// A chunk that is data only in part is a hole of the image's own file in the
// rest: nobody ever writes zeros for a hole.
//
// # Invariants
//
//   - An image without a superblock is not mounted: what a crash interrupted
//     cannot be taken for a layer.
//   - The same tree and data give the same bytes.
//   - The writer's memory is what the caller's tree takes, plus a buffer of
//     fixed size, plus 8 bytes an inode.
//   - The reader believes nothing: every offset and length is checked against the file,
//     and its memory does not depend on what the image claims.
package erofs
