package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk: small changes have a place that was taken before, large ones leave nothing.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("tmpfs:", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s, err := Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	put := func(name, text string) error {
		b := &Batch{}
		b.PutUnit(Unit{Name: name})
		b.PutFile(File{Path: name + text})
		return s.Commit(b)
	}
	if err := put("first", ""); err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); err == nil; {
		_, err = fill.Write(b)
	}
	fill.Close()
	for i := range 20 {
		if err := put(fmt.Sprint("small", i), ""); err != nil {
			t.Fatalf("small change %d: %v", i, err)
		}
	}
	var failed error
	for i := 0; i < 4000 && failed == nil; i++ {
		failed = put(fmt.Sprint("more", i), strings.Repeat("x", 20<<10))
	}
	if !errors.Is(failed, unix.ENOSPC) || !strings.Contains(failed.Error(), dir+" is full") || !strings.Contains(failed.Error(), "state.db") {
		t.Errorf("all fits, or: %v", failed)
	}
	if err := os.Remove(fill.Name()); err != nil {
		t.Fatal(err)
	}
	if err := put("last", ""); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s, err = Open(filepath.Join(dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	all, err := s.Load()
	if err != nil || all.Units["first"].Name == "" || all.Units["small19"].Name == "" || all.Units["last"].Name == "" {
		t.Errorf("after a full disk: %v, %d units", err, len(all.Units))
	}
}
