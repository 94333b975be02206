// Package archive answers: which files are in this docker archive or OCI layout?
//
// It does not know what an image is made of, and stores nothing durable.
//
// A tar file is read once, from front to end, because it may come from a pipe;
// what is in it is known only at its end, where manifests stand. So every file
// is kept on the way: small ones in memory, larger ones by the caller's Keep. A
// folder is read in place.
//
// Read first: Files, Read and Open.
//
// Invariants
//
//   - Nothing outside the archive is ever read, whatever its links and names
//     say: links are resolved among the archive's own names, a folder is opened
//     with os.Root.
//   - Memory is bounded by maxSmallTotal and maxFiles, not by the archive.
package archive
