package keeper

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/runtime"
)

// TestAdoptedAmongOthers: while the last containers are adopted, the first ones may already end or lack memory.
func TestAdoptedAmongOthers(t *testing.T) {
	k := &Keeper{options: options{logger: slog.New(slog.DiscardHandler)}, boot: "this", containers: map[string]*container{}}
	done := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				k.oomKilled(cgroup.Group{Path: "/none"})
			}
		}
	})
	for i := range 2000 {
		id := fmt.Sprintf("web.%d-aaaa.app", i)
		k.adoptOne(&state{BootID: "this", Status: runtime.Status{ID: id, State: runtime.Exited, Drained: true}})
	}
	close(done)
	looking.Wait()
	if n := len(k.list()); n != 2000 {
		t.Errorf("%d containers are known", n)
	}
}
