package ctl

import (
	"bytes"
	"testing"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// An archive may bring several images: each layer stands under its own.
func TestProgressOfSeveralImages(t *testing.T) {
	var b bytes.Buffer
	p := newPullProgress(term.Stream{Writer: &b}, false)
	for _, u := range []api.Progress{
		{Image: "app:1", Step: "resolve"},
		{Image: "app:1", Layer: "sha256:aaaaaaaaaaaaaaaa", Step: "done", Done: 1000, Total: 1000},
		{Image: "db:1", Step: "resolve"},
		{Image: "db:1", Step: "fetch", Done: 500, Total: 2000},
		{Image: "db:1", Layer: "sha256:bbbbbbbbbbbbbbbb", Step: "exists", Done: 2000, Total: 2000},
	} {
		p.update(u)
	}
	p.finish()
	if want := "app:1: aaaaaaaaaaaa: done (1.0 kB)\ndb:1: bbbbbbbbbbbb: exists (2.0 kB)\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
