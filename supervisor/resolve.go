package supervisor

import (
	"context"
	"strings"
	"sync"
)

// resolving lets the starts of one revision find out one after the other what
// its image's name means, so that all get the same answer.
type resolving struct {
	mu   sync.Mutex
	keys map[string]*resolution
}

// resolution is one revision's answer. Who holds it may read and set digest.
type resolution struct {
	held   chan struct{}
	users  int
	digest string
}

func (r *resolving) lock(ctx context.Context, key string) (*resolution, error) {
	r.mu.Lock()
	if r.keys == nil {
		r.keys = map[string]*resolution{}
	}
	k := r.keys[key]
	if k == nil {
		k = &resolution{held: make(chan struct{}, 1)}
		r.keys[key] = k
	}
	k.users++
	r.mu.Unlock()
	select {
	case k.held <- struct{}{}:
		return k, nil
	case <-ctx.Done():
		r.leave(key, k)
		return nil, ctx.Err()
	}
}

func (r *resolving) unlock(key string, k *resolution) {
	<-k.held
	r.leave(key, k)
}

// leave forgets the answer with its last user: by then the loop knows it.
func (r *resolving) leave(key string, k *resolution) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(r.keys, key)
	}
}

// byDigest names the image of ref by its digest instead of its tag.
func byDigest(ref, digest string) string {
	name, _, _ := strings.Cut(ref, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name + "@" + digest
}
