package erofs

import (
	"encoding/binary"
	"hash/crc32"
)

// Sizes and numbers of the format: fs/erofs/erofs_fs.h.
const (
	blockBits = 12
	blockSize = 1 << blockBits

	superOffset = 1024
	superSize   = 128
	magic       = 0xE0F5E1E2

	compatChecksum = 1 << 0 // crc32c of the superblock's block
	compatMtime    = 1 << 1 // the time in inodes is the one of modification

	incompatChunked = 1 << 2

	inodeSize  = 64
	nidUnit    = 32 // an inode's number is its place in the metadata in these
	direntSize = 12

	layoutPlain  = 0
	layoutInline = 2
	layoutChunks = 4

	chunkBitsMask = 0x1f
	chunkHole     = 1<<32 - 1

	xattrHeader = 12
	xattrEntry  = 4
)

var le = binary.LittleEndian

// xattrPrefixes are the prefixes of names that a byte stands for. A name
// that begins with none of them has no place in the format.
var xattrPrefixes = []struct {
	index  uint8
	prefix string
	whole  bool // nothing follows
}{
	{1, "user.", false},
	{2, "system.posix_acl_access", true},
	{3, "system.posix_acl_default", true},
	{4, "trusted.", false},
	{6, "security.", false},
}

// types of folder entries, by the type bits of st_mode
var fileTypes = [16]uint8{0o10: 1, 0o04: 2, 0o02: 3, 0o06: 4, 0o01: 5, 0o14: 6, 0o12: 7}

func fileType(mode uint32) uint8 { return fileTypes[mode>>12&15] }

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// superChecksum is the checksum of the first block from the superblock on,
// taken with a checksum of zero. The kernel leaves out the inversion at the end.
func superChecksum(b []byte) uint32 { return ^crc32.Checksum(b, castagnoli) }
