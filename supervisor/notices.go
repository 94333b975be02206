package supervisor

import (
	"maps"
	"slices"
	"sync"
)

// notices are warnings that stand until their matter is settled. `status`
// shows them.
type notices struct {
	mu  sync.Mutex
	all map[string][]string // by what they are about
}

// What notices are about.
const (
	aboutKeeper  = "keeper"
	aboutNetwork = "network"
)

// set replaces what is said about a matter, without texts by nothing. It tells
// whether that is news.
func (n *notices) set(about string, texts ...string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(n.all[about], texts) {
		return false
	}
	if n.all == nil {
		n.all = map[string][]string{}
	}
	n.all[about] = texts
	return true
}

func (n *notices) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for _, about := range slices.Sorted(maps.Keys(n.all)) {
		list = append(list, n.all[about]...)
	}
	return list
}
