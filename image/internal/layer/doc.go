// Package layer answers: which files does this archive make, when it is one of
// several that overlayfs will lay over each other?
//
// It does not download or name layers, and mounts nothing.
//
// Read first: Store, Stage (stage.go), tree (tree.go), unpacker (unpack.go, entry.go,
// resolve.go, complete.go) and sink (sink.go).
//
// # Two forms
//
// A layer is kept as a folder with its files, or as one EROFS image. What an
// archive means is settled once, in a tree in memory that knows all names and
// attributes but no content; a sink brings it to the disk in one of the forms. So
// the forms cannot come to differ. A layer that does not fit into EROFS becomes a
// folder. See Store for what stands on the disk.
//
// # Invariants
//
//   - Nothing is touched outside the given place. Names are split into single
//     components; every system call names one component relative to the
//     descriptor of its parent; a symlink is never followed by the kernel but
//     expanded here, inside the root. A name that leads out of the root is an error.
//   - Whiteouts become what overlayfs expects: ".wh.NAME" a character device
//     0:0, ".wh..wh..opq" the attribute "trusted.overlay.opaque", wherever in
//     the archive they stand. A layer's whiteouts never hide its own entries. In
//     a folder that no lower layer shows in there are none: the kernel would list them.
//   - A device 0:0 from the archive cannot be told from a whiteout by overlayfs, so it
//     is one: nothing of that name can be seen.
//   - An archive cannot set attributes that steer overlayfs or the host's
//     security modules; only user.*, security.capability and POSIX ACLs pass, on
//     files and folders. An ACL says the same as the mode.
//   - Times before 1901 or after 2446, which ext4 does not have, become the nearest
//     that it has, in both forms. Ids, device numbers and capabilities that Linux does
//     not have are errors.
//   - What an archive entry claims is checked against the free space first, and what
//     its names take against a bound of memory.
//
// # A layer and the ones below it
//
// Each layer is unpacked alone, so layers are independent and are unpacked at the
// same time. Some things in an archive do refer to what lies below: a parent folder
// the archive does not list (its attributes must be the lower folder's, or it must
// be followed if it is a symlink there), a whiteout (there has to be a folder that
// it is merged with), and a hard link to a file that only a lower layer has. Such
// a layer is only right above exactly these lower ones (Result.Dependent). When
// these are there, Stage.Adopt completes it; if symlinks or links are in play it is
// unpacked again with Options.Lower.
//
// A hard link cannot reach from one layer into another: the lower file is copied up,
// with all its other names.
//
// # Manifest
//
// Beside each layer stands a list of all its entries with checksums (manifest.go),
// which Check compares with what is there.
//
// Without privilege (effective uid not 0) a folder's owners are not set, refused
// attributes are left out, devices are whiteouts, and opaque folders get
// "user.overlay.opaque": enough to inspect images and to test, not to run other
// users' containers.
package layer
