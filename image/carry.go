package image

// Format is the form of an image outside of the store.
type Format string

// What Save writes: a docker archive (`docker save`), an OCI layout in one tar file,
// or an OCI layout as a folder. Load tells them apart by itself.
const (
	DockerArchive Format = "docker-archive"
	OCIArchive    Format = "oci-archive"
	OCIFolder     Format = "oci"
)
