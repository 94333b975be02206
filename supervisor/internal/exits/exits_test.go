package exits

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

var start = time.Date(2026, 11, 22, 1, 2, 3, 4, time.UTC)

func record(instance string, n int) *api.ExitRecord {
	at := start.Add(time.Duration(n) * time.Minute)
	return &api.ExitRecord{Unit: "web", Instance: instance, Run: fmt.Sprintf("%s-%04d", instance, n), Container: "app", Revision: 1,
		StartedAt: at, At: at.Add(time.Second), Exit: &api.Exit{Code: n, Status: uint32(n) << 8, At: at.Add(time.Second)}}
}

func codes(t *testing.T, s *Store, unit, instance string) (list []int) {
	t.Helper()
	all, err := s.List(unit, instance)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		list = append(list, r.Exit.Code)
	}
	return list
}

func TestPutListForget(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "exits"))
	if got := codes(t, s, "web", ""); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for _, r := range []*api.ExitRecord{record("web.1", 1), record("web.2", 2), record("web.1", 3), record("web.1", 3)} {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	if got := codes(t, s, "web", ""); !reflect.DeepEqual(got, []int{3, 2, 1}) {
		t.Errorf("all = %v", got)
	}
	if got := codes(t, s, "web", "web.1"); !reflect.DeepEqual(got, []int{3, 1}) {
		t.Errorf("of web.1 = %v", got)
	}
	if list, _ := s.List("web", "web.2"); !reflect.DeepEqual(list[0], *record("web.2", 2)) {
		t.Errorf("%+v is not what was put", list[0])
	}
	if err := s.Forget("web"); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(s.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBounds(t *testing.T) {
	s := New(t.TempDir())
	for n := range 3 * Keep {
		if err := s.Put(record("web.1", n)); err != nil {
			t.Fatal(err)
		}
	}
	got := codes(t, s, "web", "")
	if len(got) != Keep || got[0] != 3*Keep-1 {
		t.Errorf("kept %v", got)
	}
	big := record("web.1", 1000)
	big.Output = []api.OutputLine{{Text: strings.Repeat("x", Bytes+1)}}
	if err := s.Put(big); err != nil {
		t.Fatal(err)
	}
	if got := codes(t, s, "web", ""); !reflect.DeepEqual(got, []int{1000}) {
		t.Errorf("with a huge one: %v", got)
	}
}

// TestDamage: what a kill or a bad disk left is not shown, and does not stay.
func TestDamage(t *testing.T) {
	s := New(t.TempDir())
	if err := s.Put(record("web.1", 1)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(s.dir, "web", "web.1")
	for name, text := range map[string]string{".exit-123": "{", "00000000000000000000-x.json": "{"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := codes(t, s, "web", ""); !reflect.DeepEqual(got, []int{1}) {
		t.Errorf("listed %v", got)
	}
	if err := s.Put(record("web.1", 2)); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".exit-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestNames(t *testing.T) {
	s := New(t.TempDir())
	for _, name := range []string{"", "..", "../x", "a/b", ".hidden"} {
		if err := s.Put(&api.ExitRecord{Unit: name, Instance: "x", Run: "x"}); err == nil {
			t.Errorf("unit %q is taken", name)
		}
		if _, err := s.List(name, ""); err == nil {
			t.Errorf("unit %q is listed", name)
		}
	}
}

// TestClockSetBack: records of a time that has not come yet go first, and what is new is kept,
// whatever the clock says.
func TestClockSetBack(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "exits"))
	put := func(n int, at time.Time) {
		t.Helper()
		r := record("web.1", n)
		r.StartedAt, r.At = at, at.Add(time.Second)
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	for n := range Keep {
		put(n, time.Now().AddDate(1, 0, n))
	}
	for n := range 3 {
		put(100+n, time.Now().Add(time.Duration(n-3)*time.Hour))
	}
	put(200, time.Unix(int64(1), 0)) // and then far back
	got := codes(t, s, "web", "")
	if want := []int{9, 8, 7, 6, 5, 4, 102, 101, 100, 200}; !reflect.DeepEqual(got, want) {
		t.Errorf("kept %v", got)
	}
}
