package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Where no keeper answers, asking starts none, and still tells which one would be.
func TestAskKeeperThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "keeper")
	s, err := AskKeeper(t.Context(), Options{Root: dir, RunDir: dir, Keeper: binary})
	if !errors.Is(err, ErrKeeper) || s.Binary != binary || s.Pid != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
