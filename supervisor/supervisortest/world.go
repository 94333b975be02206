package supervisortest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/runtime"
)

// World is one host.
type World struct {
	Runtime *Runtime
	Network *Network
	Images  *Images
}

// New makes an empty host.
func New() *World {
	return &World{Runtime: NewRuntime(), Network: NewNetwork(), Images: NewImages()}
}

// Leftovers names everything that belongs to no running container: after the
// removal of all units there is nothing.
func (w *World) Leftovers() []string {
	live := map[string]bool{}
	var left []string
	for _, st := range w.Runtime.all() {
		if st.State == runtime.Exited {
			left = append(left, "container "+st.ID+" has exited")
			continue
		}
		live[st.Run] = true
	}
	for _, l := range w.Network.Leases() {
		if !live[l.Run] {
			left = append(left, "address of "+l.Run)
		}
	}
	leases, _ := w.Images.Leases()
	for _, id := range leases {
		if run := id[:max(strings.LastIndexByte(id, '.'), 0)]; !live[run] {
			left = append(left, "image of "+id)
		}
	}
	slices.Sort(left)
	return left
}

// String draws the world in a line, for test failures.
func (w *World) String() string {
	var parts []string
	for _, st := range w.Runtime.all() {
		parts = append(parts, fmt.Sprintf("%s=%s", st.Run, st.State))
	}
	return strings.Join(parts, " ")
}
