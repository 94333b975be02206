package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, body := range []string{"one", "two"} {
		if err := WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != body {
			t.Error(string(b), err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Error(left)
	}
	if err := WriteFile(filepath.Join(path, "x"), nil, 0o600); err == nil {
		t.Error("below a file")
	}
}

func TestRemoveAllUnreadable(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a/b/c")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{deep, filepath.Dir(deep)} {
		if err := os.Chmod(d, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveAll(filepath.Join(dir, "a")); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Error(left)
	}
}

func TestNeed(t *testing.T) {
	dir := t.TempDir()
	if err := Need(dir, 1); err != nil {
		t.Error(err)
	}
	err := Need(dir, 1<<60)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "1.2 EB needed, ") {
		t.Error(err)
	}
}

func TestNoSpaceError(t *testing.T) {
	for want, e := range map[string]NoSpaceError{
		"no space left on /s: 1.0 kB free":                                                {Free: 1024},
		"no space left on /s: 2.0 kB needed, 1.0 kB free":                                 {Free: 1024, Need: 2048},
		"no inodes left on /s: all 600 are in use, 1.0 kB free":                           {Free: 1024, Inodes: 600, Need: 5, Reserve: 9},
		"no inodes left on /s: 6 of 600 are not in use, and have to stay so, 1.0 kB free": {Free: 1024, Inodes: 600, InodesFree: 6},
		"no space left on /s: 3.1 kB needed (1.0 kB to fetch, about 2.0 kB unpacked), 4.1 kB free, 512 B have to stay free, 1.0 kB are promised to other pulls": {
			Free: 4096, Need: 3072, Fetch: 1024, Reserve: 512, Claimed: 1024},
	} {
		e.Path = "/s"
		if got := e.Error(); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1536: "1.5 kB", 10 << 30: "10.7 GB", 1 << 62: "4.6 EB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestSyncerShares(t *testing.T) {
	s := &Syncer{Path: t.TempDir()}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := (&Syncer{Path: "/nowhere"}).Sync(); err == nil {
		t.Error("no error")
	}
}

// A sync waits for busy writers, and is theirs too; but not for ever.
func TestSyncWaitsForBusyWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Syncer{Path: "/"}
		a, b, c := s.Begin(), s.Begin(), s.Begin()
		start, done := time.Now(), make(chan time.Duration, 3)
		go func() { _ = a.Sync(); done <- time.Since(start) }()
		time.Sleep(time.Second)
		c.End()
		c.End()
		time.Sleep(time.Second)
		go func() { _ = b.Sync(); done <- time.Since(start) }()
		for range 2 {
			if got := <-done; got != 2*time.Second {
				t.Error("synced after", got)
			}
		}
		d := s.Begin()
		defer d.End()
		start = time.Now()
		if err := s.Sync(); err != nil || time.Since(start) != maxDelay {
			t.Error(err, time.Since(start))
		}
	})
}
