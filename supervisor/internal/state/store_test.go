package state

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

var update = flag.Bool("update", false, "write the fixture of the current version")

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func load(t *testing.T, s *Store) Everything {
	t.Helper()
	all, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var at = time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)

// sample is one record of each kind, as today's fixture holds it.
func sample() (*Batch, Everything) {
	u := Unit{Name: "web", Revision: 2, Intent: plan.Stopped, Restart: 1, CreatedAt: at, Ports: map[string]uint16{"80/tcp": 32768}}
	def := unit.Unit{Kind: unit.Service, Name: "web", Replicas: 1, Network: "bridge",
		Restart:    unit.RestartPolicy{Condition: unit.Any, Delay: unit.Duration(time.Second), Multiplier: 2},
		Containers: []unit.Container{{Name: "app", Image: "nginx:1.27", PullPolicy: "missing"}}}
	r1 := Revision{Unit: "web", Number: 1, Definition: def, Text: "image: nginx:1.27\n", Source: "/etc/wherry/units/web.yaml", By: "units folder", AppliedAt: at}
	r2 := r1
	r2.Number, r2.Digest, r2.By = 2, "sha256:2c26", "alice (uid 1000, pid 812)"
	a := Attempts{Unit: "web", Instance: "web.1", Restarts: 3,
		Attempts: plan.Attempts{Failures: 2, Last: at, Error: "network: port 80: address already in use", Revision: 2},
		Ended:    &Ended{Run: "web.1-7f3k", Revision: 2, StartedAt: at, EndedAt: at.Add(time.Second), Code: 0, Signal: "SIGKILL", OOM: true}}
	f := File{Path: "web.yaml", Unit: "web", Digest: "sha256:fcde"}
	b := &Batch{}
	b.PutUnit(u)
	b.PutRevision(r2)
	b.PutRevision(r1)
	b.PutAttempts(a)
	b.PutFile(f)
	return b, Everything{Units: map[string]Unit{"web": u}, Revisions: map[string][]Revision{"web": {r1, r2}},
		Attempts: map[string]Attempts{"web.1": a}, Files: map[string]File{"web.yaml": f}}
}

func TestCommitAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	b, want := sample()
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	s.Abandon()
	s = open(t, path)
	defer s.Close()
	if got := load(t, s); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v\nwant %+v", got, want)
	}
	del := &Batch{}
	del.DeleteUnit("web")
	del.DeleteRevision("web", 1)
	del.DeleteAttempts("web", "web.1")
	del.DeleteFile("web.yaml")
	if err := s.Commit(del); err != nil {
		t.Fatal(err)
	}
	if got := load(t, s); len(got.Units)+len(got.Attempts)+len(got.Files) != 0 || len(got.Revisions["web"]) != 1 {
		t.Fatalf("after deletion: %+v", got)
	}
}

func TestLaterIsWrittenSoon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	synctest.Test(t, func(t *testing.T) {
		s := open(t, path)
		b, _ := sample()
		s.Later(b)
		if got := load(t, s); len(got.Units) != 0 {
			t.Error("a lazy change was written at once")
		}
		time.Sleep(2 * lazyDelay)
		synctest.Wait()
		if got := load(t, s); len(got.Units) != 1 {
			t.Error("a lazy change was never written")
		}
		s.Abandon()
	})
}

func TestPutAndDeleteCostsNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	defer s.Close()
	before := s.txid(t)
	b := &Batch{}
	b.PutUnit(Unit{Name: "run-1"})
	s.Later(b)
	b = &Batch{}
	b.DeleteUnit("run-1")
	s.Later(b)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if after := s.txid(t); after != before {
		t.Errorf("%d transactions for a record that came and went", after-before)
	}
}

func (s *Store) txid(t *testing.T) (id int) {
	t.Helper()
	if err := s.db.View(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCommitCarriesLazyChangesInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	b := &Batch{}
	b.PutUnit(Unit{Name: "a", Restart: 1})
	b.PutUnit(Unit{Name: "b"})
	s.Later(b)
	b = &Batch{}
	b.PutUnit(Unit{Name: "a", Restart: 2})
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	s.Abandon()
	s = open(t, path)
	defer s.Close()
	got := load(t, s)
	if got.Units["a"].Restart != 2 || len(got.Units) != 2 {
		t.Fatalf("%+v", got.Units)
	}
}

func TestNewerFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketMeta))
		return errors.Join(b.Put([]byte(keyVersion), []byte(strconv.Itoa(len(migrations)+1))), b.Delete([]byte(keyOldest)))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(path); !errors.Is(err, ErrNewer) {
		t.Fatalf("Open of a newer file: %v", err)
	}
}

// Every version's file opens. A new version adds a line and, with -update, a file.
func TestFixtures(t *testing.T) {
	_, want := sample()
	fixture := filepath.Join("testdata", "v"+strconv.Itoa(len(migrations))+".db")
	if *update {
		os.Remove(fixture)
		s := open(t, fixture)
		b, _ := sample()
		if err := s.Commit(b); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	for v := 1; v <= len(migrations); v++ {
		raw, err := os.ReadFile(filepath.Join("testdata", "v"+strconv.Itoa(v)+".db"))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "state.db")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, path)
		if got := load(t, s); !reflect.DeepEqual(got, want) {
			t.Errorf("version %d: got %+v\nwant %+v", v, got, want)
		}
		s.Close()
	}
}

// One container's digest stands where it always has; those of several have a place of
// their own. What is known is never changed.
func TestDigests(t *testing.T) {
	one := Revision{Definition: unit.Unit{Containers: []unit.Container{{Name: "app"}}}}
	got := one.WithDigests(map[string]string{"app": "sha256:1"}, true)
	if got.Digest != "sha256:1" || got.Digests != nil || !got.Stale || got.ImageDigest("app") != "sha256:1" || one.Digest != "" {
		t.Errorf("%+v", got)
	}
	if again := got.WithDigests(map[string]string{"app": "sha256:2"}, false); again.Digest != "sha256:1" || !again.Stale {
		t.Errorf("%+v", again)
	}
	two := Revision{Definition: unit.Unit{Containers: []unit.Container{{Name: "a"}, {Name: "b"}}}}
	half := two.WithDigests(map[string]string{"a": "sha256:1"}, false)
	whole := half.WithDigests(map[string]string{"a": "sha256:3", "b": "sha256:2"}, true)
	if whole.Digest != "" || whole.ImageDigest("a") != "sha256:1" || whole.ImageDigest("b") != "sha256:2" || !whole.Stale {
		t.Errorf("%+v", whole)
	}
	if half.ImageDigest("b") != "" || two.Digests != nil {
		t.Error("an earlier revision was changed")
	}
}
