package api

// DiskUsage is what takes the space of the daemon's root, in bytes on disk: by
// image, by unit and by container. GET /v1/disk.
type DiskUsage struct {
	Disk    Disk         `json:"disk"`
	Images  []ImageUsage `json:"images"`  // the largest first
	Units   []UnitUsage  `json:"units"`   // by name
	Blobs   int64        `json:"blobs"`   // all compressed blobs
	Layers  int64        `json:"layers"`  // all unpacked layers
	Trash   int64        `json:"trash"`   // deleted, not gone yet
	Partial int64        `json:"partial"` // downloads that were cut off
	Volumes int64        `json:"volumes"` // named volumes
}

// Disk is how full a file system is.
type Disk struct {
	Path       string  `json:"path"`
	Total      int64   `json:"total"`
	Free       int64   `json:"free"`
	Reserve    int64   `json:"reserve"` // pulls leave this much free
	Used       float64 `json:"used"`    // percent, as df shows it
	Inodes     int64   `json:"inodes,omitempty"`
	InodesFree int64   `json:"inodes_free,omitempty"`
	Pressure   string  `json:"pressure,omitempty"` // why it is too full, if it is
}

// ImageUsage is what one image takes.
type ImageUsage struct {
	Digest string   `json:"digest"`
	Names  []string `json:"names"`
	Size   int64    `json:"size"`   // blobs and layers
	Unique int64    `json:"unique"` // what no other image shares
	Units  []string `json:"units"`  // whose containers or kept revisions need it
}

// UnitUsage is what one unit takes besides its images, which it may share.
type UnitUsage struct {
	Unit       string           `json:"unit"`
	Images     []string         `json:"images"`     // digests
	ImageSize  int64            `json:"image_size"` // of these images, shared parts counted in full
	Writable   int64            `json:"writable"`   // of all its containers
	Volumes    int64            `json:"volumes"`    // anonymous ones
	Logs       int64            `json:"logs"`
	Containers []ContainerUsage `json:"containers"`
}

// ContainerUsage is what one container takes; also one that has ended and is
// still there to be looked at.
type ContainerUsage struct {
	Instance  string `json:"instance"`
	Container string `json:"container,omitempty"` // if the run has several
	Run       string `json:"run"`
	Image     string `json:"image,omitempty"` // digest
	Ended     bool   `json:"ended,omitempty"`
	Writable  int64  `json:"writable"` // its writable layer
	Volumes   int64  `json:"volumes"`  // anonymous ones
}
