// Package image answers: which bytes are this image, and what root file system
// do they give?
//
// It starts no processes but credential helpers, performs no mounts and does not
// know units. It reads no environment variable.
//
// Read first: Store, Store.Pull (pull.go) and Store.Prepare (prepare.go). The
// parts that the store is made of stand in internal: blob (content-addressed
// bytes), layer (archives to folders), index (names and leases), overlay (layers
// to mounts), fan (one stream, several readers) and disk (durable changes).
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
// # On disk
//
// Below Options.Root:
//
//	blobs/   manifests, configs and compressed layers by digest (internal/blob)
//	layers/  each layer unpacked in a folder of its own (internal/layer)
//	images/  index.json, leases/ and the lock (internal/index)
//
// Compressed layers stay after they were unpacked: they are what a damaged
// layer is repaired from and what an image is saved from.
//
// # Invariants
//
//   - What stands in blobs/, layers/ and index.json is whole and on the disk:
//     made under a temporary name, synced, renamed. A crash leaves temporary
//     names, which Open removes, or content that no image needs yet, which the
//     next pull uses and the next Remove or GC deletes.
//   - An image is in the index only when everything it needs is there.
//   - A layer is used for an image only after its very blob was seen to unpack to
//     the diff ID of the image's config. A config cannot claim the layers of others.
//   - Nothing that an image, a lease or a running pull needs is deleted.
//   - One process owns a root: images/lock.
package image
