// Package image answers: which bytes are this image, and what root file system
// do they give?
//
// It starts no processes but credential helpers and, if Options.Keyless says so, the
// program that judges certificates; it performs no mounts and does not
// know units. It reads no environment variable.
//
// Read first: Store, Store.Pull (pull.go) and Store.Prepare (prepare.go). The
// parts that the store is made of stand in internal: blob (content-addressed
// bytes), registry (registries and their mirrors), layer (archives to folders),
// index (names and leases), overlay (layers to mounts), fan (one stream, several
// readers) and disk (durable changes).
//
// # A pull
//
// Steps: resolve (name to manifest for a platform), fetch, verify, unpack,
// commit. A layer's download, its digest, decompression, the digest of what
// comes out and unpacking run at the same time, for several layers at once;
// nothing of it is visible before every digest was right. A broken connection
// is resumed. What one pull is downloading another one waits for instead of
// downloading it too.
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
//	layers/  each layer unpacked in a folder of its own (internal/layer)
//	images/  index.json, leases/ and the lock (internal/index), trust.json,
//	         boot.json (unclean.go) and verity.json (seal.go)
//
// Compressed layers stay after they were unpacked: they are what a damaged
// layer is repaired from and what an image is saved from.
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
//   - An image is in the index only when everything it needs is there.
//   - A layer is used for an image only after its very blob was seen to unpack to
//     the diff ID of the image's config. A config cannot claim the layers of others.
//   - Nothing that an image, a lease or a running pull needs is deleted.
//   - One process owns a root: images/lock.
package image
