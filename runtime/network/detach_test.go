package network

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// A run that ends has its network taken away by who sees the end, and by who removes the run. The
// address may be another run's as soon as one of them is through.
func TestDetachWaitsForAnother(t *testing.T) {
	m, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		first, err := m.alone(t.Context(), "web.1-aaaa")
		if err != nil {
			t.Fatal(err)
		}
		ctx, giveUp := context.WithCancel(t.Context())
		second, third := make(chan error, 1), make(chan error, 1)
		go func() { second <- m.Detach(t.Context(), "web.1-aaaa") }()
		go func() { third <- m.Detach(ctx, "web.1-aaaa") }()
		if err := m.Detach(t.Context(), "web.2-aaaa"); err != nil {
			t.Errorf("another run: %v", err)
		}
		synctest.Wait()
		if len(second)+len(third) > 0 {
			t.Error("one did not wait for the other")
		}
		giveUp()
		if err := <-third; !errors.Is(err, context.Canceled) {
			t.Errorf("who gives up: %v", err)
		}
		first()
		if err := <-second; err != nil {
			t.Error(err)
		}
		if len(m.detaching) > 0 {
			t.Errorf("left: %v", m.detaching)
		}
	})
}
