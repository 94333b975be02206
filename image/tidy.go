package image

import "time"

// Hold keeps an image from being deleted by GC.
type Hold struct {
	Digest string // of the manifest; or
	Name   string // a name, whatever it stands for
	Why    string // "revision 3 of unit web"
}

// GCOptions configure one garbage collection.
type GCOptions struct {
	// High and Low are shares of the file system in use, in percent. Below
	// High nothing is deleted that still has a name; from it on images that nobody
	// needs go, the longest unused first, until Low is reached. 0: 85 and 80. With
	// All every image that nobody needs goes, whatever the disk says.
	High, Low int
	All       bool
	Room      int64         // bytes that shall be free above the reserve too, for a pull that had too little
	MinAge    time.Duration // younger (pulled or last used) ones stay; 0: none is too young
	DryRun    bool          // say what would go
}

// GCResult says what a garbage collection did.
type GCResult struct {
	RemoveResult
	Images []string  `json:"images"` // digests of the images that went
	Blobs  []string  `json:"blobs"`  // compressed layers of images that stay, which went as the last resort
	Disk   DiskState `json:"disk"`   // afterwards
}

// Explanation says why an image stays or goes.
type Explanation struct {
	Image   string    `json:"image"` // first name, or the digest
	Digest  string    `json:"digest"`
	Stays   bool      `json:"stays"`
	Reasons []string  `json:"reasons"` // "container web.1-7f3k uses it", "unused for 12 days; disk 71 % < 85 %"
	Size    int64     `json:"size"`    // bytes on disk
	Frees   int64     `json:"frees"`   // bytes that only this image takes
	LastUse time.Time `json:"last_use,omitzero"`
}

// DiskState is how full the store's file system is.
type DiskState struct {
	Path    string  `json:"path"`
	Total   int64   `json:"total"`
	Free    int64   `json:"free"`
	Reserve int64   `json:"reserve"` // pulls leave this much free
	Used    float64 `json:"used"`    // percent, as df shows it

	Inodes     int64 `json:"inodes"` // 0: no limit but the space
	InodesFree int64 `json:"inodes_free"`
}

// Usage is what takes the store's space, in bytes on disk.
type Usage struct {
	Images  []ImageUsage     `json:"images"`
	Leases  map[string]int64 `json:"leases"`  // the writable layer of each lease
	Blobs   int64            `json:"blobs"`   // all compressed blobs
	Layers  int64            `json:"layers"`  // all unpacked layers
	Trash   int64            `json:"trash"`   // deleted, not gone yet
	Partial int64            `json:"partial"` // downloads that were cut off
}

// ImageUsage is what one image takes.
type ImageUsage struct {
	Digest string   `json:"digest"`
	Names  []string `json:"names"`
	Size   int64    `json:"size"`   // blobs and layers
	Unique int64    `json:"unique"` // what no other image shares
}
