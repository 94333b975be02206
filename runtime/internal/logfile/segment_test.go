package logfile

import (
	"os"
	"path/filepath"
	"testing"
)

// TestListWhileDeleted: a log whose unit is being removed has no segments; that is no error, whenever it happens.
func TestListWhileDeleted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.1", "app.log")
	for range 3000 {
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		gone := make(chan error, 1)
		go func() { gone <- os.Remove(filepath.Dir(path)) }()
		if segs, err := list(path); err != nil || len(segs) > 0 {
			t.Errorf("%v, %v", segs, err)
		}
		if err := <-gone; err != nil {
			t.Fatal(err)
		}
	}
}
