package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestVerify spoils a layer below a running container: verify names the file, repair
// makes it right from the compressed layer, the container goes on, and the next one
// gets the repaired layer.
func TestVerify(t *testing.T) {
	for _, form := range []string{"folder", "erofs"} {
		t.Run(form, func(t *testing.T) {
			reg := registry(t)
			h := harness.NewHost(t)
			h.Config = "layers: " + form + "\n"
			h.Start()
			h.Apply("box", "image: "+reg.Ref("busybox")+"\ncommand: [sleep, \"1000\"]\n")
			pid := h.MainPid(h.Running("box", 1))
			if out := h.OK("image", "verify"); !strings.Contains(out, "good") {
				t.Error(out)
			}
			spoilLayer(t, h.Dir, form)
			r := h.Fails(1, []string{"1 thing is damaged", "--repair"}, "image", "verify")
			for _, part := range []string{"damaged", "bin/busybox", "content differs"} {
				if !strings.Contains(r.Stdout, part) {
					t.Errorf("no %q in\n%s", part, r.Stdout)
				}
			}
			if out := h.OK("image", "verify", "--repair"); !strings.Contains(out, "repaired") {
				t.Error(out)
			}
			if out := h.OK("image", "verify"); !strings.Contains(out, "good") {
				t.Error(out)
			}
			if again := h.MainPid(h.Running("box", 1)); again != pid {
				t.Error("the container was disturbed:", again, pid)
			}
			h.OK("run", "--rm", "--network", "none", reg.Ref("busybox"), "true")
		})
	}
}

// spoilLayer changes a byte in the middle of busybox, and nothing else of it.
func spoilLayer(t *testing.T, root, form string) {
	t.Helper()
	pattern := map[string]string{"folder": "diff/bin/busybox", "erofs": "layer.erofs"}[form]
	var found string
	_ = filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, "/"+pattern) {
			found = p
		}
		return nil
	})
	b, err := os.ReadFile(found)
	if err != nil {
		t.Fatalf("no %s below %s: %v", pattern, root, err)
	}
	st, err := os.Stat(found)
	if err != nil {
		t.Fatal(err)
	}
	at := len(b) / 2
	if i := bytes.Index(b, []byte("\x7fELF")); i >= 0 {
		at = i + 200_000
	}
	f, err := os.OpenFile(found, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{b[at] ^ 0xff}, int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(found, time.Time{}, st.ModTime()); err != nil {
		t.Fatal(err)
	}
}
