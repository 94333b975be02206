package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a", "f")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	bare, err := Measure(ctx, dir)
	if err != nil || bare.Files != 2 {
		t.Fatal(bare, err)
	}
	if err := os.WriteFile(file, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	one, err := Measure(ctx, dir)
	if err != nil || one.Files != 3 || one.Bytes < bare.Bytes+100_000 || one.Bytes > bare.Bytes+120_000 {
		t.Error("a file:", one, bare, err)
	}
	// Names and holes take no space.
	sparse := filepath.Join(dir, "sparse")
	if err := errors.Join(os.Link(file, filepath.Join(dir, "g")), os.Link(file, filepath.Join(dir, "h")),
		os.WriteFile(sparse, nil, 0o600), os.Truncate(sparse, 1<<30)); err != nil {
		t.Fatal(err)
	}
	linked, err := Measure(ctx, dir)
	if err != nil || linked.Files != 4 || linked.Bytes > one.Bytes+8192 {
		t.Error("hard links and holes:", linked, one, err)
	}
	if none, err := Measure(ctx, filepath.Join(dir, "none")); err != nil || none != (Tree{}) {
		t.Error("nothing:", none, err)
	}
}

func TestMeasureEnds(t *testing.T) {
	dir := t.TempDir()
	for i := range 300 {
		if err := os.Mkdir(filepath.Join(dir, string(rune('a'+i))), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestStat(t *testing.T) {
	st, err := StatFS(t.TempDir())
	if err != nil || st.Total <= 0 || st.Free > st.Total || st.Used+st.Free > st.Total || st.Percent() <= 0 || st.Percent() >= 100 {
		t.Error(st, err)
	}
	if _, err := StatFS("/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	// What is kept for root is neither used nor free.
	st = Stat{Total: 200, Used: 60, Free: 40, Inodes: 10, InodesFree: 2}
	if st.Percent() != 60 || st.InodePercent() != 80 {
		t.Error(st.Percent(), st.InodePercent())
	}
	if p := (Stat{}).InodePercent(); p != 0 {
		t.Error("no limit of inodes:", p)
	}
}
