package layer

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// TestDiscardBesideDeletion: what is on its way to the trash is not taken for trash.
func TestDiscardBesideDeletion(t *testing.T) {
	s, err := OpenStore(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3000 {
		dir := filepath.Join(s.dir, "tmp", "layer")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s.kick()
		if err := s.discard(dir); err != nil {
			t.Fatal(err)
		}
	}
}
