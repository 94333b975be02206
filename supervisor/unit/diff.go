package unit

// Change is one field that differs between two units.
type Change struct {
	Path string `json:"path"` // "containers.app.image"
	Old  string `json:"old"`  // empty: not there
	New  string `json:"new"`
}
