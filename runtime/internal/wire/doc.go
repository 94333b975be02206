// Package wire is the protocol between the runtime's client and the keeper:
// how a message looks on a Unix stream socket, which messages there are, and
// how descriptors travel with them.
//
// It does not know containers: what a request means is the keeper's business,
// how calls are retried the client's.
//
// Read [Message] first, then [Conn], then the bodies in body.go.
//
// # A message
//
// A header of 20 bytes in network order, then a JSON body:
//
//	magic    4  "WHRY"
//	version  2  of the header and of the bodies; the answer to a hello fixes it
//	type     2  one of [Type]
//	id       4  chosen by the client; the answer carries the same one
//	length   4  of the body in bytes, at most [MaxBody]
//	fds      2  descriptors that come with the header's first byte
//	reserved 2  zero
//
// # Invariants
//
//   - A peer that gets fewer descriptors than the header counts, a cut off
//     message, or an unknown magic, ends the connection: the stream cannot be
//     trusted any more.
//   - Received descriptors are close-on-exec, and belong to the receiver.
//   - Bodies only ever gain fields; a receiver ignores what it does not know.
//     The files in testdata are the contract: messages of old versions stay
//     there and must go on decoding to the same values.
//   - A keeper and a client whose versions are one apart understand each other
//     ([Negotiate]).
package wire
