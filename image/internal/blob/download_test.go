package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var ctx = context.Background()

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(b)
	return b
}

// split is from which size on a store of openSmall fetches in parts.
const split = 4 << 20

func openSmall(t *testing.T) *Store {
	t.Helper()
	s := open(t)
	s.splitFrom, s.partSize = split, split/2
	return s
}

// origin serves one body, in one of the ways that registries have.
type origin struct {
	body      []byte
	ignoring  bool                // sends the whole, whatever was asked for
	refusing  bool                // says 416 to whoever asks for a part
	unbounded bool                // goes on to the end, whatever length was asked for
	cut       func(n int) int64   // bytes after which the n-th connection breaks; negative: it does not open; 0: never
	block     func(at int64) bool // says where a connection stops to give anything

	mu     sync.Mutex
	opened int
	open   int
	most   int
	served int64
	asked  []string
}

func (o *origin) Open(ctx context.Context, offset, length int64) (io.ReadCloser, int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.opened
	o.opened++
	o.asked = append(o.asked, fmt.Sprintf("%d+%d", offset, length))
	if o.refusing && (offset > 0 || length >= 0) {
		return nil, 0, ErrRange
	}
	if o.ignoring {
		offset, length = 0, -1
	}
	if o.unbounded {
		length = -1
	}
	rest := o.body[offset:]
	if length >= 0 {
		rest = rest[:length]
	}
	c := &conn{o: o, ctx: ctx, at: offset, rest: rest}
	if o.cut != nil {
		if c.left = o.cut(n); c.left < 0 {
			return nil, 0, syscall.ECONNREFUSED
		}
	}
	o.open++
	o.most = max(o.most, o.open)
	return c, offset, nil
}

type conn struct {
	o    *origin
	ctx  context.Context
	at   int64
	rest []byte
	left int64
	once sync.Once
}

func (c *conn) Read(p []byte) (int, error) {
	if c.o.block != nil && c.o.block(c.at) {
		<-c.ctx.Done()
		return 0, c.ctx.Err()
	}
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	if len(p) > 50_000 {
		p = p[:50_000]
	}
	if c.left > 0 && int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n := copy(p, c.rest)
	c.rest, c.at = c.rest[n:], c.at+int64(n)
	c.o.mu.Lock()
	c.o.served += int64(n)
	c.o.mu.Unlock()
	if c.left > 0 {
		if c.left -= int64(n); c.left == 0 {
			return n, syscall.ECONNRESET
		}
	}
	return n, nil
}

func (c *conn) Close() error {
	c.once.Do(func() {
		c.o.mu.Lock()
		defer c.o.mu.Unlock()
		c.o.open--
	})
	return nil
}

func (o *origin) remote() Remote {
	return Remote{Open: o.Open, Retry: upTo(5), Stall: time.Minute, Connections: NewConnections(4, 4), Host: "h"}
}

func (o *origin) digest() string { return Digest(o.body) }

// fetch downloads the body, reads it, and publishes it.
func fetch(t *testing.T, s *Store, o *origin) {
	t.Helper()
	d, err := s.Join(ctx, o.digest(), int64(len(o.body)), o.remote())
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(d.Reader(ctx))
	if err = errors.Join(err, d.Wait(ctx)); err != nil || !bytes.Equal(got, o.body) {
		t.Fatalf("%d bytes, %v; asked %v", len(got), err, o.asked)
	}
	if err := errors.Join(d.Commit(), d.Commit(), d.Leave()); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Read(o.digest()); err != nil || !bytes.Equal(b, o.body) {
		t.Fatal(len(b), err)
	}
	assertNoPartials(t, s)
}

func assertNoPartials(t *testing.T, s *Store) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(s.dir, "partial")); err != nil || len(left) > 0 {
		t.Error("partials left:", left, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.active) > 0 {
		t.Error("active:", s.active)
	}
}

// Every way in which a registry serves comes out right, for a blob that is
// fetched in one and for one that is fetched in parts.
func TestDownload(t *testing.T) {
	cuts := func(n int) int64 { return []int64{300_000, -1, 70_001, 1_500_000, -1, 0, 900_000}[n%7] }
	for _, size := range []int{0, 1, 100_000, pieceSize, 3<<20 + 5, split + 7} {
		for name, o := range map[string]*origin{
			"plain": {}, "ignoring ranges": {ignoring: true}, "refusing ranges": {refusing: true}, "unbounded": {unbounded: true},
			"cuts": {cut: cuts}, "cuts and unbounded": {unbounded: true, cut: cuts},
			"cut once, then refusing": {refusing: true, cut: func(n int) int64 {
				if n == 0 {
					return 1
				}
				return 0
			}},
		} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				o.body = noise(size)
				// No time passes: no other connection is added because this machine is slow.
				synctest.Test(t, func(t *testing.T) { fetch(t, openSmall(t), o) })
				if o.cut == nil && o.served > int64(size) {
					t.Errorf("%d bytes served of %d", o.served, size)
				}
			})
		}
	}
}

// A reader that waits brings more connections; one that is busy does not.
func TestConnectionsAreAddedForWhoWaits(t *testing.T) {
	for _, fast := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := &origin{body: noise(4 * split)}
			r := o.remote()
			r.Open = func(ctx context.Context, offset, length int64) (io.ReadCloser, int64, error) {
				body, at, err := o.Open(ctx, offset, length)
				if err == nil && !fast {
					body = slow{body}
				}
				return body, at, err
			}
			s := openSmall(t)
			d, err := s.Join(ctx, o.digest(), int64(len(o.body)), r)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, d.Reader(ctx))
			if err = errors.Join(err, d.Wait(ctx), d.Commit(), d.Leave()); err != nil || n != d.size || o.served != n {
				t.Error(n, o.served, err)
			}
			if fast && o.most > 1 || !fast && o.most != maxConns {
				t.Errorf("fast %v: %d connections", fast, o.most)
			}
			assertNoPartials(t, s)
		})
	}
}

// slow gives 50,000 bytes in a hundredth of a second.
type slow struct{ io.ReadCloser }

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return s.ReadCloser.Read(p)
}

func TestDownloadGoesOnAfterLeave(t *testing.T) {
	s := open(t)
	o := &origin{body: noise(5 << 20)}
	for part := int64(1); part <= 4; part++ {
		o.block = func(at int64) bool { return at >= part<<20 }
		d, err := s.Join(ctx, o.digest(), int64(len(o.body)), o.remote())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, d.Reader(ctx), part<<20-writeFrom); err != nil {
			t.Fatal(err)
		}
		if err := d.Leave(); err != nil || !errors.Is(d.Wait(ctx), errAbandoned) {
			t.Fatal(err)
		}
		if part%2 == 0 { // the next process
			if s, err = Open(s.dir); err != nil {
				t.Fatal(err)
			}
		}
		if all, err := s.Partials(); err != nil || len(all) != 1 || all[0].Size < part<<20-noteEvery || all[0].Active {
			t.Fatal(all, err)
		}
	}
	o.block = nil
	fetch(t, s, o)
	if most := int64(len(o.body)) + 4*(noteEvery+writeFrom); o.served > most {
		t.Errorf("%d bytes served for %d", o.served, len(o.body))
	}
}

// After a boot only what was synced counts, and whatever else the file holds
// comes out: a hole that the log calls full is found by the digest, and the
// partial is gone then.
func TestPartialAfterPowerCut(t *testing.T) {
	o := &origin{body: noise(3 << 20)}
	size := int64(len(o.body))
	h, _ := CheckDigest(o.digest())
	for name, c := range map[string]struct {
		log     string
		resumed int64
		wrong   bool
	}{
		"this boot":           {"wherry-partial 1 %d BOOT\n0 1048576\n1048576 2097152\n", 2 << 20, false},
		"another boot":        {"wherry-partial 1 %d other\n0 1048576\nsync 1\n1048576 2097152\n", 1 << 20, false},
		"another, not synced": {"wherry-partial 1 %d other\n0 1048576\n", 0, false},
		"cut off":             {"wherry-partial 1 %d BOOT\n0 1048576\n1048576 20", 1 << 20, false},
		"garbage":             {"wherry-partial 1 %d BOOT\n0 1048576\n\x00\x00\x00\n1048576 2097152\n", 1 << 20, false},
		"no head":             {"\x00\x00 %d BOOT\n0 1048576\n", 0, false},
		"too far":             {"wherry-partial 1 %d BOOT\n0 1048576\n1048576 99999999\n", 1 << 20, false},
		"a lie":               {"wherry-partial 1 %d BOOT\n0 2600000\n", 2_600_000, true},
		"file too short":      {"wherry-partial 1 %d BOOT\n0 2600001\n", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.boot = "BOOT"
			data := append(bytes.Clone(o.body[:2<<20]), make([]byte, 2_600_000-2<<20)...)
			if err := errors.Join(os.WriteFile(s.path("partial", h), data, 0o600), os.WriteFile(s.path("partial", h+logSuffix), fmt.Appendf(nil, c.log, size), 0o600)); err != nil {
				t.Fatal(err)
			}
			d, err := s.Join(ctx, o.digest(), size, o.remote())
			if err != nil {
				t.Fatal(err)
			}
			err = d.Wait(ctx)
			if done, fetched := d.Progress(); done != size || fetched != size-c.resumed || errors.Is(err, ErrMismatch) != c.wrong {
				t.Error(done, size-fetched, err)
			}
			if err := d.Leave(); err != nil {
				t.Fatal(err)
			}
			fetch(t, s, o)
		})
	}
}

func TestSlowDownloadIsSyncedInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		o := &origin{body: noise(4 << 20)}
		r := o.remote()
		r.Open = func(ctx context.Context, offset, length int64) (io.ReadCloser, int64, error) {
			time.Sleep(syncEvery)
			return o.Open(ctx, offset, length)
		}
		o.block = func(at int64) bool { return at >= 2<<20 }
		d, err := s.Join(ctx, o.digest(), int64(len(o.body)), r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, d.Reader(ctx), 3<<19); err != nil {
			t.Fatal(err)
		}
		if err := d.Leave(); err != nil {
			t.Fatal(err)
		}
		h, _ := CheckDigest(o.digest())
		if _, synced := readLog(s.path("partial", h)+logSuffix, d.size, "next boot"); synced.total() < 1<<20 {
			t.Error("on the disk:", synced)
		}
	})
}

func TestWrongDownloads(t *testing.T) {
	good := noise(100_000)
	wrong := bytes.Clone(good)
	wrong[50_000] ^= 1
	for name, c := range map[string]struct {
		o    *origin
		size int64
		is   error
	}{
		"wrong byte": {&origin{body: wrong}, 100_000, ErrMismatch},
		"too long":   {&origin{body: append(bytes.Clone(good), 'x')}, 100_000, ErrMismatch},
		"too short":  {&origin{body: good[:99_999], ignoring: true}, 100_000, nil},
		"always cut": {&origin{body: good, ignoring: true, cut: func(int) int64 { return 10 }}, 100_000, syscall.ECONNRESET},
		"no answer":  {&origin{body: good, cut: func(int) int64 { return -1 }}, 100_000, syscall.ECONNREFUSED},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			d, err := s.Join(ctx, Digest(good), c.size, c.o.remote())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, d.Reader(ctx)); c.is != ErrMismatch && err == nil {
				t.Error("the reader saw no error")
			}
			if err := d.Wait(ctx); err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Error(err)
			}
			if err := d.Publish(); err == nil {
				t.Error("published")
			}
			if err := d.Leave(); err != nil {
				t.Error(err)
			}
			if _, ok := s.Size(Digest(good)); ok {
				t.Error("stored")
			}
			if c.is == ErrMismatch {
				assertNoPartials(t, s)
			}
			fetch(t, s, &origin{body: good})
		})
	}
}

// Those who want the same blob share it; who leaves disturbs nobody.
func TestDownloadIsShared(t *testing.T) {
	s := open(t)
	gate := make(chan struct{})
	o := &origin{body: noise(2 << 20)}
	o.block = func(at int64) bool {
		if at >= 1<<20 {
			<-gate
		}
		return false
	}
	var ds []*Download
	for range 5 {
		d, err := s.Join(ctx, o.digest(), 2<<20, o.remote())
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	if err := errors.Join(ds[0].Leave(), ds[3].Leave()); err != nil {
		t.Fatal(err)
	}
	if n, err := s.RemovePartial(o.digest()); n != 0 || err != nil {
		t.Error("an active one was removed", err)
	}
	close(gate)
	var wg sync.WaitGroup
	for _, i := range []int{1, 2, 4} {
		wg.Go(func() {
			got, err := io.ReadAll(ds[i].Reader(ctx))
			if err = errors.Join(err, ds[i].Wait(ctx), ds[i].Commit(), ds[i].Leave()); err != nil || !bytes.Equal(got, o.body) {
				t.Error(len(got), err)
			}
		})
	}
	wg.Wait()
	if o.opened != 1 || o.served != 2<<20 {
		t.Errorf("%d requests, %d bytes", o.opened, o.served)
	}
	assertNoPartials(t, s)
}

// A connection that gives next to nothing is as good as broken.
func TestTrickleIsAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		o := &origin{body: noise(1000)}
		r := o.remote()
		first := true
		r.Open = func(ctx context.Context, offset, length int64) (io.ReadCloser, int64, error) {
			body, at, err := o.Open(ctx, offset, length)
			if first {
				first = false
				return trickle{body, ctx}, at, err
			}
			return body, at, err
		}
		start := time.Now()
		d, err := s.Join(ctx, o.digest(), 1000, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.Wait(ctx), d.Commit(), d.Leave()); err != nil || time.Since(start) != time.Minute {
			t.Error(err, time.Since(start))
		}
	})
}

// trickle gives a byte every seven seconds.
type trickle struct {
	io.ReadCloser
	ctx context.Context
}

func (s trickle) Read(p []byte) (int, error) {
	select {
	case <-time.After(7 * time.Second):
		return s.ReadCloser.Read(p[:1])
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

// A stored blob is checked, and goes if it is wrong.
func TestStoredBlobIsCheckedAgain(t *testing.T) {
	s, body := open(t), []byte("hello")
	for _, damage := range []bool{false, true} {
		if err := s.Put(Digest(body), body); err != nil {
			t.Fatal(err)
		}
		h, _ := CheckDigest(Digest(body))
		if damage {
			if err := errors.Join(os.Remove(s.path("sha256", h)), os.WriteFile(s.path("sha256", h), []byte("jello"), 0o400)); err != nil {
				t.Fatal(err)
			}
		}
		d, err := s.Join(ctx, Digest(body), 5, Remote{})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Wait(ctx); errors.Is(err, ErrMismatch) != damage {
			t.Error(err)
		}
		if err := d.Leave(); err != nil {
			t.Error(err)
		}
		if _, ok := s.Size(Digest(body)); ok == damage {
			t.Error("there:", ok)
		}
	}
}

func TestDiscardLeavesNothing(t *testing.T) {
	s := open(t)
	o := &origin{body: noise(1 << 20)}
	d, err := s.Join(ctx, o.digest(), 1<<20, o.remote())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Wait(ctx), d.Discard()); err != nil {
		t.Fatal(err)
	}
	assertNoPartials(t, s)
	o.block = func(at int64) bool { return at > 1<<19 }
	if d, err = s.Join(ctx, o.digest(), 1<<20, o.remote()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, d.Reader(ctx), 1<<18); err != nil {
		t.Fatal(err)
	}
	if missing := s.Missing(o.digest(), 1<<20); missing > 3<<18 {
		t.Error("missing", missing)
	}
	if err := d.Discard(); err != nil {
		t.Fatal(err)
	}
	assertNoPartials(t, s)
}

func TestPrunePartials(t *testing.T) {
	s := open(t)
	now := time.Now()
	put := func(name string, age time.Duration) string {
		o := &origin{body: append(noise(3<<20), name...), block: func(at int64) bool { return at >= 2<<20 }}
		d, err := s.Join(ctx, o.digest(), int64(len(o.body)), o.remote())
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.CopyN(io.Discard, d.Reader(ctx), 1<<20)
		h, _ := CheckDigest(o.digest())
		if err := errors.Join(err, d.Leave(), os.Chtimes(s.path("partial", h), now, now.Add(-age))); err != nil {
			t.Fatal(err)
		}
		return o.digest()
	}
	put("old", 100*time.Hour)
	put("large", 2*time.Hour)
	young := put("young", time.Hour)
	if err := s.PrunePartials(now, 50*time.Hour, 3<<20); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Partials(); err != nil || len(all) != 1 || all[0].Digest != young {
		t.Error(all, err)
	}
	if err := os.WriteFile(s.path("partial", "junk"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := s.RemovePartial(young); n < 1<<20 || err != nil {
		t.Error(n, err)
	}
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	assertNoPartials(t, again)
}

// BenchmarkDownload is a blob from memory to the disk, with its digest and one
// reader: what a pull costs besides the registry and the unpacking.
func BenchmarkDownload(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	o := &origin{body: noise(64 << 20)}
	digest := o.digest()
	b.SetBytes(int64(len(o.body)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := s.Join(ctx, digest, int64(len(o.body)), o.remote())
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.Copy(io.Discard, d.Reader(ctx))
		if err := errors.Join(err, d.Wait(ctx), d.Publish(), d.Leave()); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Remove(digest); err != nil {
			b.Fatal(err)
		}
	}
}
