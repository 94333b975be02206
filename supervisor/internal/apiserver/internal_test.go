package apiserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"log/slog"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// as is a request of a peer.
func as(p peer, r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), peerKey{}, p))
}

func TestOnlyRootAndOurselvesChangeThings(t *testing.T) {
	s := &Server{Log: slog.New(slog.DiscardHandler)}
	ok := func(w http.ResponseWriter, _ *http.Request) error { return reply(w, "done", nil) }
	for _, c := range []struct {
		peer   peer
		need   access
		status int
	}{
		{peer{known: true, uid: 0}, admin, 200},
		{peer{known: true, uid: ownUID()}, admin, 200},
		{peer{known: true, uid: ownUID() + 1000}, admin, 403},
		{peer{}, admin, 403},
		{peer{known: true, uid: ownUID() + 1000}, read, 200},
		{peer{}, read, 200},
	} {
		w := httptest.NewRecorder()
		s.guard(c.need, ok).ServeHTTP(w, as(c.peer, httptest.NewRequest("POST", "/", nil)))
		if w.Code != c.status {
			t.Errorf("%v needing %d: %d, want %d", c.peer, c.need, w.Code, c.status)
		}
	}
}

// Every call that is not a GET, except waiting, is for admins.
func TestRoutesThatChangeAreForAdmins(t *testing.T) {
	s := &Server{Backend: struct{ Backend }{}, Log: slog.New(slog.DiscardHandler)}
	defer func() {
		if r := recover(); r != nil && !strings.Contains(fmt.Sprint(r), "nil pointer") {
			panic(r)
		}
	}()
	h := s.handler()
	stranger := peer{known: true, uid: ownUID() + 1000}
	for _, call := range []string{"POST /v1/reload", "POST /v1/units:start", "POST /v1/units:stop", "POST /v1/units:restart",
		"POST /v1/units:rm", "POST /v1/apply", "POST /v1/run", "POST /v1/exec", "POST /v1/images:pull", "DELETE /v1/images/x",
		"POST /v1/images:load", "POST /v1/images:save", "POST /v1/images:gc", "POST /v1/images:verify", "POST /v1/images:repair", "POST /v1/operations/x:abort"} {
		method, path, _ := strings.Cut(call, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, as(stranger, httptest.NewRequest(method, path, strings.NewReader("{}"))))
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", call, w.Code)
		}
	}
}

func TestAPanicEndsItsRequestOnly(t *testing.T) {
	s := &Server{Log: slog.New(slog.DiscardHandler)}
	mux := http.NewServeMux()
	mux.Handle("/early", s.guard(read, func(http.ResponseWriter, *http.Request) error { panic("oops") }))
	mux.Handle("/late", s.guard(read, func(w http.ResponseWriter, _ *http.Request) error {
		fmt.Fprint(w, "half")
		panic("oops")
	}))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	res, err := http.Get(srv.URL + "/early")
	if err != nil || res.StatusCode != 500 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	res, err = http.Get(srv.URL + "/late")
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("a half answer looks whole")
	}
}

// What a process wrote before its end is sent, also behind a slow reader and
// with a child that keeps the pipe open.
func TestOutputOfAPipeThatStaysOpen(t *testing.T) {
	w := &slowWriter{ResponseRecorder: httptest.NewRecorder()}
	s := newStream(w, framesType)
	o, err := newOutput(api.FrameStdout, s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo $! >&2; head -c 300000 /dev/zero")
	cmd.Stdout = o.write
	pid, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(pid, &child); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p, err := os.FindProcess(child); err == nil {
			_ = p.Kill()
		}
	}()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	o.finish()
	s.close()
	n := 0
	for {
		typ, p, err := api.ReadFrame(w.Body, nil)
		if err != nil {
			break
		}
		if typ == api.FrameStdout {
			n += len(p)
		}
	}
	if n != 300000 {
		t.Errorf("%d bytes, want 300000", n)
	}
}

type slowWriter struct{ *httptest.ResponseRecorder }

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return w.ResponseRecorder.Write(p)
}

func TestStreamAfterItsEnd(t *testing.T) {
	w := httptest.NewRecorder()
	s := newStream(w, framesType)
	s.close()
	if err := s.control(api.Control{Created: "x"}); err == nil || w.Body.Len() > 0 {
		t.Error("a straggler wrote behind the answer")
	}
}

func TestPace(t *testing.T) {
	p := newPace()
	sent := 0
	for n := range 1000 {
		if p.due(image.Progress{Layer: "a", Step: "fetch", Done: int64(n), Total: 1000}) {
			sent++
		}
	}
	if sent < 1 || sent > 100 {
		t.Errorf("%d of 1000 sent", sent)
	}
	if !p.due(image.Progress{Layer: "a", Step: "fetch", Done: 1000, Total: 1000}) || !p.due(image.Progress{Layer: "a", Step: "unpack"}) {
		t.Error("the end of a step is dropped")
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "s")
	ln, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := Listen(path, ""); err == nil || !strings.Contains(err.Error(), "answers there") {
		t.Errorf("a second listener: %v", err)
	}
	if _, err := Listen(path, "no-such-group-here"); err == nil {
		t.Error("an unknown group is an error")
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("Close left the socket")
	}
	// A daemon that was killed leaves its socket; the next one replaces it.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if ln, err = Listen(path, ""); err != nil {
		t.Fatal(err)
	}
	next, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
	ln.Close()
}
