// Package image answers: which bytes are this image, and what root file system
// do they give?
//
// It starts no processes but credential helpers and, if Options.Keyless says so, the
// program that judges certificates; it performs no mounts, but for one that is in no
// namespace, to find out whether the kernel can (form.go), and does not
// know units. It reads no environment variable.
//
// Read first: Store, Store.Pull (pull.go) and Store.Prepare (prepare.go). The
// parts that the store is made of stand in internal: blob (content-addressed
// bytes), registry (registries and their mirrors), cosign (signatures), layer (archives to
// folders and images), erofs (the format of those), index (names and leases), overlay
// (layers to mounts), quota (limits of writable layers), archive (what is loaded), verity
// (files that the kernel checks), fan (one stream, several readers) and disk (durable changes).
//
// # A pull
//
// Steps: resolve (name to manifest for a platform), fetch, verify, unpack,
// commit. A layer's download, its digest, decompression, the digest of what
// comes out and unpacking run at the same time, for several layers at once;
// nothing of it is visible before every digest was right. A broken connection
// is resumed, and so is the download of a pull that failed or of a process that was killed:
// what came of a blob stays in blobs/partial for a day. What one pull is downloading
// another one waits for instead of downloading it too.
//
// # Room
//
// A pull is refused before it fetches anything if it does not fit beside Options.Reserve
// and what other pulls were promised: the compressed bytes are known, the unpacked ones
// estimated (space.go). While layers unpack the reserve is looked at again, before each
// large file and ten times a second; the youngest layer gives way. A pull that ends for lack of room
// takes along what it brought, and a layer that was larger than its estimate is remembered.
//
// # Forms
//
// A layer is a folder or an EROFS image, as Options.Form says for new ones; a store, and an
// image, can have both. A layer that the format cannot hold is a folder in any case.
//
// # Trust
//
// Between resolve and fetch stands the policy (trust.go): the first rule that matches
// the repository decides, and a refused image is not fetched, unpacked, named or
// kept. It is asked again whenever an image that is there is pulled, and by Admit.
//
//   - A signature counts for the manifest or for an index that the manifest was chosen
//     from. It is found as cosign stores it (internal/cosign), at the registry or its
//     mirrors: where it comes from proves nothing, what is signed does.
//   - A signature by a key needs no transparency log. One by an identity
//     (package keyless) needs what the trusted root names, which is a file: none is fetched.
//   - The repository in a signature is not compared, as cosign does not: signatures
//     stay good when an image is copied or mirrored. Who wants to keep repositories
//     apart gives them different signers.
//   - What was verified is remembered in images/trust.json by signer, not by rule: a
//     rule that still has the signer needs no network; otherwise it is verified again.
//     A record that is lost or damaged costs a verification, never lets one pass.
//   - Load asks the policy too, but no registry: where signatures are demanded, it brings
//     in only what was verified before.
//   - What cannot be found out is a no. ErrUntrusted is then ErrUnavailable too.
//
// # Deleting
//
// Collect (gc*.go) takes images out of the index and sweeps what nothing needs
// any more: decide is the pure function that says which and why. A sweep holds
// no lock while it deletes; who pins what is being deleted waits for that.
//
// # On disk
//
// Below Options.Root:
//
//	blobs/   manifests, configs and compressed layers by digest (internal/blob)
//	         and downloads that are not done
//	layers/  each layer in a folder of its own, in one of the forms, with the
//	         manifest that it is verified by (internal/layer)
//	images/  names, leases and times of use (internal/index), and
//	         trust.json   signatures that were verified (trustrecord.go)
//	         boot.json    how the store was left (unclean.go)
//	         verity.json  files that the kernel checks (seal.go)
//	         lock         its owner's process id
//
// Compressed layers stay after they were unpacked: they are what a damaged
// layer is repaired from and what an image is saved from. Only Collect deletes them before
// their image, as the last resort; then they are fetched again when they are needed.
//
// # Damage
//
// A layer has a manifest with a checksum of every file; Verify compares the two, and
// repairs a layer beside the damaged one, which gives way in one step. Where the
// file system has fs-verity, the kernel checks what is read of blobs and images of
// layers. After a power cut, which boot.json tells from a clean end and from the death
// of the process alone, Open looks at everything but the content of files, and
// layers made since the boot before are read before they are used: by Prepare and Pull, or in
// idle time. What is damaged is dropped, and made again from its blob if
// that is there.
//
// # Invariants
//
//   - What stands in blobs/, layers/ and index.json is whole and on the disk:
//     made under a temporary name, synced, renamed. A crash leaves temporary
//     names, which Open removes, or content that no image needs yet, which the
//     next pull uses and the next Remove or Collect deletes.
//   - An image gets into the index only when everything it needs is there. What it has
//     lost since, by hand or by a power cut, is ErrDamaged at Prepare, and a pull
//     brings it back.
//   - A layer is used for an image only after its very blob was seen to unpack to
//     the diff ID of the image's config. A config cannot claim the layers of others.
//   - Nothing that an image, a lease or a running pull needs is deleted.
//   - One process owns a root: images/lock.
package image
