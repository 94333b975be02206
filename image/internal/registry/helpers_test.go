package registry

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-run/wherry/image/internal/blob"
)

// serve starts a server on loopback and returns its host.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func mismatchOf(d v1.Descriptor, got []byte) error {
	return &blob.MismatchError{Want: d.Digest.String(), Got: blob.Digest(got), WantSize: d.Size, GotSize: int64(len(got))}
}
