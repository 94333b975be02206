package apiserver_test

import (
	"testing"

	"github.com/wherry-run/wherry/supervisor/api"
)

func TestVitals(t *testing.T) {
	_, c := start(t)
	plain, err := c.Vitals(t.Context(), api.VitalsRequest{})
	if err != nil || plain.Daemon.Goroutines != 40 || plain.Daemon.Heap != 5<<20 || plain.Keeper == nil || plain.Keeper.Stacks != "" {
		t.Errorf("%+v, %v", plain, err)
	}
	full, err := c.Vitals(t.Context(), api.VitalsRequest{Collect: true, Stacks: true})
	if err != nil || full.Daemon.Heap != 4<<20 || full.Keeper == nil || full.Keeper.Stacks == "" {
		t.Errorf("%+v, %v", full, err)
	}
}
