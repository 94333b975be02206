package supervisor

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOthersCannotReachWhatContainersWrite: neither layers and volumes below a new
// root, nor those below one that an earlier version left open.
func TestOthersCannotReachWhatContainersWrite(t *testing.T) {
	p := paths{root: t.TempDir()}
	if err := os.Mkdir(p.runs(), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := p.closeToOthers(); err != nil {
		t.Fatal(err)
	}
	if err := writeRecord(p, record{Run: "web.1-7f3k"}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{p.runs(), filepath.Join(p.root, "volumes"), p.run("web.1-7f3k")} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st.Mode(), err)
		}
	}
}
