package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The probes of this host's own file systems agree with what the store does on them,
// and leave nothing.
func TestProbes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	old := filepath.Join(dir, probePrefix+"killed")
	fresh := filepath.Join(dir, probePrefix+"another")
	for _, d := range []string{filepath.Join(old, "work"), fresh} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	if err := ProbeOverlay(dir); err != nil {
		t.Errorf("overlay: %v", err)
	}
	erofs := ProbeEROFS(dir)
	if tried := tryErofs(dir); (erofs == nil) != (tried == nil) {
		t.Errorf("EROFS: %v, the store: %v", erofs, tried)
	}
	if err := ProbeQuota(dir); err != nil && !errors.Is(err, ErrNoQuota) {
		t.Errorf("quota: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(fresh) {
		t.Errorf("left: %v, %v", entries, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) { // others come and go
		t.Errorf("mounts are left: %v\n%s", err, mounts)
	}
	if err := ProbeOverlay("/proc"); err == nil {
		t.Error("/proc takes writable layers")
	}
}
