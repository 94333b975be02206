package state

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// fixture1 is a file of version 1 in a folder of its own.
func fixture1(t *testing.T) (path string, raw []byte) {
	t.Helper()
	raw, err := os.ReadFile("testdata/v1.db")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, raw
}

// next is the migrations of a release to come, which adds a bucket.
func next(oldest int) []migration {
	return append(slices.Clone(migrations[:1:1]), migration{oldest: oldest, run: func(tx *bolt.Tx) error {
		return errors.Join(
			tx.Bucket([]byte(bucketUnits)).Put([]byte("new"), []byte(`{"name":"new"}`)),
			func() error { _, err := tx.CreateBucket([]byte("probes")); return err }(),
		)
	}})
}

func mustOpen(t *testing.T, path string, steps []migration) *Store {
	t.Helper()
	s, err := openWith(path, steps)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMigrationKeepsACopy(t *testing.T) {
	path, _ := fixture1(t)
	_, want := sample()
	s := mustOpen(t, path, next(2))
	if got := load(t, s); len(got.Units) != len(want.Units)+1 {
		t.Errorf("after the migration: %+v", got.Units)
	}
	s.Close()

	info, err := os.Stat(path + ".bak-1")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the copy: %v, %v", info, err)
	}
	// The copy is a whole file of version 1.
	old := mustOpen(t, path+".bak-1", migrations[:1])
	defer old.Close()
	if got := load(t, old); !reflect.DeepEqual(got, want) {
		t.Errorf("the copy holds %+v\nwant %+v", got, want)
	}
	names, _ := filepath.Glob(filepath.Dir(path) + "/*")
	if len(names) != 2 {
		t.Errorf("left: %v", names)
	}
}

// A new file and one of this version need no copy.
func TestNoCopyWithoutMigration(t *testing.T) {
	path, _ := fixture1(t)
	for range 2 {
		mustOpen(t, path, migrations[:1]).Close()
	}
	fresh := filepath.Join(t.TempDir(), "state.db")
	mustOpen(t, fresh, next(2)).Close()
	for _, p := range []string{path, fresh} {
		if copies, _ := filepath.Glob(p + ".*"); len(copies) != 0 {
			t.Errorf("copies: %v", copies)
		}
	}
}

// What cannot be copied is not migrated.
func TestNoMigrationWithoutCopy(t *testing.T) {
	path, raw := fixture1(t)
	if err := os.Mkdir(path+".bak-1", 0o700); err != nil { // a rename cannot replace it
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".bak-1/x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openWith(path, next(2)); err == nil || !strings.Contains(err.Error(), "copy before migration to version 2") {
		t.Fatalf("opened: %v", err)
	}
	if now, _ := os.ReadFile(path); !reflect.DeepEqual(now, raw) {
		t.Error("the file was changed")
	}
}

// A failed migration leaves the file in its version, and the next try works.
func TestFailedMigrationChangesNothing(t *testing.T) {
	path, _ := fixture1(t)
	_, want := sample()
	bad := append(next(2), migration{oldest: 3, run: func(*bolt.Tx) error { return errors.New("no") }})
	if _, err := openWith(path, bad); err == nil || !strings.Contains(err.Error(), "migration 3: no") {
		t.Fatalf("opened: %v", err)
	}
	s := mustOpen(t, path, migrations[:1])
	if got := load(t, s); !reflect.DeepEqual(got, want) {
		t.Errorf("after a failed migration: %+v", got)
	}
	s.Close()
	mustOpen(t, path, next(2)).Close()
}

// After a downgrade the daemon says what to do, and the copy does it.
func TestDowngradeNamesTheCopy(t *testing.T) {
	path, _ := fixture1(t)
	_, want := sample()
	mustOpen(t, path, next(2)).Close()
	before, _ := os.ReadFile(path)
	_, err := openWith(path, migrations[:1])
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "version 2: written by a newer version (this one knows 1)") ||
		!strings.Contains(err.Error(), "mv "+path+".bak-1 "+path) {
		t.Fatalf("downgraded: %v", err)
	}
	if now, _ := os.ReadFile(path); !reflect.DeepEqual(now, before) {
		t.Error("a refused file was changed")
	}
	if err := os.Rename(path+".bak-1", path); err != nil { // as the error says
		t.Fatal(err)
	}
	s := mustOpen(t, path, migrations[:1])
	if got := load(t, s); !reflect.DeepEqual(got, want) {
		t.Errorf("from the copy: %+v", got)
	}
	s.Close()
	// Without the copy it says so.
	mustOpen(t, path, next(2)).Close()
	os.Remove(path + ".bak-1")
	if _, err := openWith(path, migrations[:1]); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "there is no copy") {
		t.Errorf("downgraded without a copy: %v", err)
	}
}

// A migration that only adds lets the release before go on, and does not run
// again after that.
func TestDowngradeOfAnAddition(t *testing.T) {
	path, _ := fixture1(t)
	mustOpen(t, path, next(1)).Close()
	s := mustOpen(t, path, migrations[:1])
	b := &Batch{}
	b.PutUnit(Unit{Name: "written-by-the-old"})
	b.DeleteUnit("new")
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = mustOpen(t, path, next(1))
	defer s.Close()
	got := load(t, s)
	if _, ok := got.Units["written-by-the-old"]; !ok || len(got.Units["new"].Name) != 0 {
		t.Errorf("after down and up: %+v", got.Units)
	}
}
