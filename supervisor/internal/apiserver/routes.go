package apiserver

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"

	"github.com/wherry-run/wherry/supervisor/api"
)

// access is what a caller needs for a route.
type access int

const (
	read  access = iota // whoever can open the socket
	admin               // root, or the daemon's own user
)

// handlerFunc answers one request. An error it returns before it has written
// anything becomes the answer.
type handlerFunc func(w http.ResponseWriter, r *http.Request) error

// handler is the table of routes.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range []struct {
		pattern string
		access  access
		handle  handlerFunc
	}{
		{"GET /v1/info", read, s.getInfo},
		{"GET /v1/doctor", read, s.getDoctor},
		{"POST /v1/reload", admin, s.postReload},
		{"POST /v1/shutdown", admin, s.postShutdown},
		{"DELETE /v1/shutdown", admin, s.deleteShutdown},
		{"GET /v1/vitals", admin, s.getVitals}, // it may stop the world for a moment
		{"GET /v1/units", read, s.getUnits},
		{"GET /v1/units/{name}", read, s.getUnit},
		{"GET /v1/units/{name}/security", read, s.getSecurity},
		{"GET /v1/units/{name}/exits", read, s.getExits},
		{"POST /v1/units:start", admin, s.act(s.Backend.Start)},
		{"POST /v1/units:stop", admin, s.act(s.Backend.Stop)},
		{"POST /v1/units:restart", admin, s.act(s.Backend.Restart)},
		{"POST /v1/units:rm", admin, s.act(s.Backend.Remove)},
		{"POST /v1/units:update", admin, s.postUpdate},
		{"POST /v1/containers:pause", admin, s.handleTargets(s.Backend.Pause)},
		{"POST /v1/containers:resume", admin, s.handleTargets(s.Backend.Resume)},
		{"POST /v1/containers:kill", admin, s.postKill},
		{"GET /v1/containers:top", admin, s.getTop}, // command lines may hold secrets
		{"GET /v1/containers:stats", read, s.getStats},
		{"POST /v1/apply", admin, s.postApply},
		{"POST /v1/run", admin, s.postRun},
		{"POST /v1/exec", admin, s.postExec},
		{"POST /v1/attach", admin, s.postAttach},
		{"GET /v1/files", admin, s.getFiles},
		{"GET /v1/files:info", admin, s.getFileInfo},
		{"GET /v1/attach", admin, s.getAttachment},
		{"POST /v1/debug", admin, s.postDebug},
		{"GET /v1/logs", read, s.getLogs},
		{"GET /v1/events", read, s.getEvents},
		{"POST /v1/wait", read, s.postWait},
		{"GET /v1/images", read, s.getImages},
		{"GET /v1/images/{ref}", read, s.getImage},
		{"GET /v1/images:explain", read, s.getExplanation},
		{"POST /v1/images:pull", admin, s.postPull},
		{"POST /v1/images:save", admin, s.postSave},
		{"POST /v1/images:gc", admin, s.postCollect},
		{"POST /v1/images:verify", admin, s.verify(false)}, // reads the whole store
		{"POST /v1/images:repair", admin, s.verify(true)},
		{"DELETE /v1/images/{ref}", admin, s.deleteImage},
		{"GET /v1/disk", read, s.getDisk},
		{"GET /v1/operations", read, s.getOperations},
		{"POST /v1/operations/{id}", admin, s.postOperation},
	} {
		mux.Handle(route.pattern, s.guard(route.access, limited(route.handle)))
	}
	// Their bodies are archives, read as they come: no limit.
	mux.Handle("PUT /v1/files", s.guard(admin, s.putFiles))
	mux.Handle("POST /v1/images:load", s.guard(admin, s.postLoad))
	mux.Handle("/", s.guard(read, func(_ http.ResponseWriter, r *http.Request) error { return noSuchCall(r) }))
	return mux
}

func noSuchCall(r *http.Request) error {
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf("no such call: %s %s", r.Method, r.URL.Path),
		Hint: "client and daemon may be of different versions: compare `wherry version` with `wherry ctl status`"}
}

// limited bounds the request's body.
func limited(handle handlerFunc) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		return handle(w, r)
	}
}

// guard checks the caller, turns a returned error into the
// answer and contains panics.
func (s *Server) guard(need access, handle handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &answer{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v != http.ErrAbortHandler {
				s.Log.Error("api handler panicked", "path", r.URL.Path, "panic", v, slog.String("stack", string(debug.Stack())))
			}
			if out.began.Load() {
				panic(http.ErrAbortHandler) // cut the stream, so that the caller sees that it is not whole
			}
			writeError(out, &api.Error{Code: api.CodeInternal, Message: fmt.Sprintf("internal error: %v", v)})
		}()
		if need == admin && !peerOf(r.Context()).admin() {
			writeError(out, &api.Error{Code: api.CodeForbidden,
				Message: fmt.Sprintf("%s may only read", peerOf(r.Context())), Hint: "run it as root: sudo wherry ctl ..."})
			return
		}
		if err := handle(out, r); err != nil {
			e := toAPI(err)
			if e.Code == api.CodeInternal {
				s.Log.Warn("api call", "path", r.URL.Path, "err", err)
			}
			if out.began.Load() {
				panic(http.ErrAbortHandler)
			}
			writeError(out, e)
		}
	})
}

// answer knows whether something of the answer has been sent.
type answer struct {
	http.ResponseWriter
	began atomic.Bool // the sender of a stream writes too
}

func (a *answer) WriteHeader(code int) {
	a.began.Store(true)
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(p []byte) (int, error) {
	a.began.Store(true)
	return a.ResponseWriter.Write(p)
}

// Unwrap serves http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// began reports whether something of the answer to w has been sent.
func began(w http.ResponseWriter) bool {
	a, ok := w.(*answer)
	return ok && a.began.Load()
}
