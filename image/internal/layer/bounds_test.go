package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
)

// TestAttributesOfFoldersAreBounded: the attributes of a folder count as those of a
// file do, also where they only describe a folder that is there already.
func TestAttributesOfFoldersAreBounded(t *testing.T) {
	eachForm(t, func(t *testing.T, form Form) {
		for name, folder := range map[string]func(i int) string{
			"new":   func(i int) string { return fmt.Sprintf("d%d/", i) },
			"again": func(i int) string { return fmt.Sprintf("d%d/", i%2) },
			"root":  func(int) string { return "./" },
		} {
			var entries []entry
			for i := range 40 {
				entries = append(entries, entry{Name: folder(i), Xattrs: map[string]string{"user.a": strings.Repeat("a", 60<<10)}})
			}
			_, err := unpackOnly(t, form, Options{Memory: 1 << 20}, imagetest.Archive(entries...))
			if err == nil || !strings.Contains(err.Error(), "they take more than 1.0 MB") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

// TestSparseSizesDoNotOverflow: a second sparse file of nearly the largest size there
// is does not slip past the bound because the sum wraps around.
func TestSparseSizesDoNotOverflow(t *testing.T) {
	full := errors.New("no room")
	eachForm(t, func(t *testing.T, form Form) {
		var b bytes.Buffer
		for _, size := range []int64{100_000, math.MaxInt64 - 1000} {
			pax(&b, "GNU.sparse.size", fmt.Sprint(size), "GNU.sparse.numblocks", "1", "GNU.sparse.name", fmt.Sprint("s", size), "GNU.sparse.map", "0,512")
			block(&b, "GNUSparseFile.1/s", tar.TypeReg, strings.Repeat("x", 512))
		}
		b.Write(make([]byte, 1024))
		_, err := unpackOnly(t, form, Options{Room: func(n int64) error {
			if n < 1<<40 {
				return nil
			}
			return full
		}}, b.Bytes())
		if !errors.Is(err, full) {
			t.Errorf("got %v", err)
		}
	})
}
