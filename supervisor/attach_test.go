package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// endless is a container that goes on until somebody stops to wait for it.
type endless struct{ containers }

func (endless) Wait(ctx context.Context, _ string) (runtime.Exit, error) {
	<-ctx.Done()
	return runtime.Exit{}, ctx.Err()
}

// TestOutputFromTheCall: what is written after the call, and before anybody reads, may be the answer to the caller's input.
func TestOutputFromTheCall(t *testing.T) {
	a := api.Attached{Unit: "web", Instance: "web.1", Container: "app"}
	for name, before := range map[string][]string{"empty": nil, "with lines": {"old", "older"}} {
		t.Run(name, func(t *testing.T) {
			s := &Supervisor{paths: paths{root: t.TempDir()}, rt: endless{}}
			path := s.paths.log(a.Unit, a.Instance, a.Container)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, text := range before {
				writeLog(t, path, text)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			output := s.Output(ctx, a, 0)
			writeLog(t, path, "answer")
			var got []string
			for l, err := range output {
				if err != nil {
					break
				}
				got = append(got, string(l.Text))
				cancel()
			}
			if !slices.Equal(got, []string{"answer"}) {
				t.Errorf("seen %q", got)
			}
		})
	}
}
