// Package layer answers: which folder does this archive make, when it is one of
// several that overlayfs will lay over each other?
//
// It does not download, name or keep layers, and mounts nothing.
//
// Unpack reads one archive and writes one folder. Read first: Unpack, unpacker
// (unpack.go), folder (folder.go) and Lower (lower.go).
//
// Invariants
//
//   - Nothing is touched outside the given folder. Names are split into single
//     components; every system call names one component relative to the
//     descriptor of its parent; a symlink is never followed by the kernel but
//     expanded here, inside the root. ".." in a name is an error.
//   - Whiteouts become what overlayfs expects: ".wh.NAME" a character device
//     0:0, ".wh..wh..opq" the attribute "trusted.overlay.opaque", wherever in
//     the archive they stand. A layer's whiteouts never hide its own entries.
//   - An archive cannot set attributes that steer overlayfs or the host's
//     security modules; only user.*, security.capability and POSIX ACLs pass.
//   - What an archive entry claims is checked against the free space first.
//
// A layer and the ones below it. Each layer is unpacked alone, so layers
// are independent and are unpacked at the same time. Three things in an archive
// do refer to what lies below: a parent folder the archive does not list (its
// mode, owner and times must be the lower folder's, or it must be followed if it
// is a symlink there), and a hard link to a file that only a lower layer has.
// The first pass notes them (Result.Implicit, Result.NeedsLower); when the lower
// layers are there, Adopt gives the folders their attributes in place, and if
// symlinks or links are in play the layer is unpacked again with
// Options.Lower. Such a layer is only right above exactly these lower ones.
//
// Without privilege (effective uid not 0) owners are not set, devices and
// refused attributes are skipped, and opaque folders get "user.overlay.opaque":
// enough to inspect images and to test, not to run other users' containers.
package layer
