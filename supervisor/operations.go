package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
)

// operations are the pulls under way, whoever asked for them: what people
// watch and abort.
type operations struct {
	mu     sync.Mutex
	all    map[string]*operation
	closed bool
}

// operation is one of them. The table's mutex guards it.
type operation struct {
	api.Operation
	layers map[string]image.Progress // by digest, the latest
	cancel context.CancelCauseFunc
}

// begin notes an operation and gives it a context that abort ends. progress
// keeps what the pull says of itself; end forgets it.
func (t *operations) begin(ctx context.Context, op api.Operation) (_ context.Context, id string, progress func(image.Progress), end func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, "", nil, nil, ErrUnavailable
	}
	if t.all == nil {
		t.all = map[string]*operation{}
	}
	op.ID = newName(op.Kind, func(id string) bool { return t.all[id] != nil })
	op.StartedAt = time.Now()
	o := &operation{Operation: op, layers: map[string]image.Progress{}}
	ctx, o.cancel = context.WithCancelCause(ctx)
	t.all[op.ID] = o
	progress = func(p image.Progress) {
		t.mu.Lock()
		defer t.mu.Unlock()
		o.note(p)
	}
	end = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.all, op.ID)
		o.cancel(nil)
	}
	return ctx, op.ID, progress, end, nil
}

// note adds one message. What the pull says of the image as a whole counts
// more than the sum of its layers.
func (o *operation) note(p image.Progress) {
	if p.Layer == "" {
		o.Step = p.Step
		if p.Total > 0 {
			o.Done, o.Total, o.Rate, o.Left = p.Done, p.Total, p.Rate, p.Left
		}
		return
	}
	if was := o.layers[p.Layer]; p.Total == 0 {
		p.Done, p.Total = was.Done, was.Total
	}
	o.layers[p.Layer] = p
	if o.Rate == 0 {
		o.Done, o.Total = 0, 0
		for _, l := range o.layers {
			o.Done, o.Total = o.Done+l.Done, o.Total+l.Total
		}
	}
	o.Step = p.Step
}

// list returns all, the oldest first.
func (t *operations) list() []api.Operation {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]api.Operation, 0, len(t.all))
	for _, o := range t.all {
		list = append(list, o.Operation)
	}
	slices.SortFunc(list, func(a, b api.Operation) int {
		if c := a.StartedAt.Compare(b.StartedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// abort ends an operation with cause.
func (t *operations) abort(id string, cause error) (api.Abort, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.all[id]
	if o == nil {
		return api.Abort{}, fmt.Errorf("%w: %s", api.ErrNoSuchOperation, id)
	}
	if o.Unit != "" {
		return api.Abort{}, &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("%s: unit %s needs it", id, o.Unit),
			Hint: "`wherry ctl stop " + o.Unit + "` ends it"}
	}
	res := api.Abort{Operation: o.Operation}
	for _, other := range t.all {
		if other != o && other.Object == o.Object {
			res.GoesOn = true
		}
	}
	o.cancel(cause)
	return res, nil
}

// close ends all of them, for good.
func (t *operations) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, o := range t.all {
		o.cancel(ErrUnavailable)
	}
}

// kindPull is the only kind so far.
const kindPull = "pull"

// pullImage pulls while others can watch it. Its error says who aborted it.
func (s *Supervisor) pullImage(ctx context.Context, op api.Operation, ref string, o image.PullOptions) (image.Image, error) {
	op.Kind, op.Object = kindPull, ref
	ctx, _, note, end, err := s.operations.begin(ctx, op)
	if err != nil {
		return image.Image{}, err
	}
	defer end()
	return s.watchedPull(ctx, ref, o, note)
}

func (s *Supervisor) watchedPull(ctx context.Context, ref string, o image.PullOptions, note func(image.Progress)) (image.Image, error) {
	tell := o.Progress
	o.Progress = func(p image.Progress) {
		note(p)
		if tell != nil {
			tell(p)
		}
	}
	img, err := s.img.Pull(ctx, ref, o)
	s.noteNoSpace(err)
	if cause := context.Cause(ctx); err != nil && (errors.Is(cause, api.ErrAborted) || errors.Is(cause, ErrUnavailable)) {
		err = cause
	}
	return img, err
}

// StartPull begins a pull that goes on without its caller, until it is done,
// aborted, or Run ends. wait gives its result; ctx ends only the waiting.
func (s *Supervisor) StartPull(ref string, o image.PullOptions, by string) (id string, wait func(ctx context.Context) (image.Image, error), err error) {
	ctx, id, note, end, err := s.operations.begin(context.Background(), api.Operation{Kind: kindPull, Object: ref, By: by})
	if err != nil {
		return "", nil, err
	}
	var img image.Image
	var pullErr error
	done := make(chan struct{})
	s.background.Go(func() {
		defer close(done)
		defer end()
		img, pullErr = s.watchedPull(ctx, ref, o, note)
		if pullErr == nil {
			s.event(api.Event{Type: event.Pull, By: by, Message: ref + " is " + img.Digest, Fields: map[string]any{"image": ref, "digest": img.Digest}})
		}
	})
	return id, func(ctx context.Context) (image.Image, error) {
		select {
		case <-done:
			return img, pullErr
		case <-ctx.Done():
			return image.Image{}, ctx.Err()
		}
	}, nil
}

// Operations are the pulls under way, the oldest first: those that somebody
// asked for and those that starts of units need.
func (s *Supervisor) Operations() []api.Operation { return s.operations.list() }

// AbortOperation ends what somebody asked for. Downloads that others wait for
// as well go on. What a start needs is ended by stopping its unit.
func (s *Supervisor) AbortOperation(id, by string) (api.Abort, error) {
	return s.operations.abort(id, fmt.Errorf("%w by %s", api.ErrAborted, by))
}
