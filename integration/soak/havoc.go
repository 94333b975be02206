package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// havocs are what happens to our own programs, each as likely as it stands here.
var havocs = []struct {
	name string
	do   func(ctx context.Context, h *host, r *rand.Rand) error
}{
	{"kill -9 daemon", func(ctx context.Context, h *host, _ *rand.Rand) error { return h.endDaemon(ctx, syscall.SIGKILL) }},
	{"kill -9 keeper", func(ctx context.Context, h *host, _ *rand.Rand) error { return h.killKeeper(ctx) }},
	{"kill -9 daemon, then keeper", func(ctx context.Context, h *host, r *rand.Rand) error {
		keeper := h.keeperPid(ctx)
		h.signalDaemon(syscall.SIGKILL)
		time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
		return h.killAndAwait(ctx, keeper)
	}},
	{"kill -9 keeper, then daemon", func(ctx context.Context, h *host, r *rand.Rand) error {
		keeper := h.keeperPid(ctx)
		if err := h.shoot(keeper); err != nil {
			return err
		}
		time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
		h.signalDaemon(syscall.SIGKILL)
		return h.answers(ctx, troubleLimit, func(i api.Info) bool { return i.KeeperPid != keeper })
	}},
	{"restart daemon", func(ctx context.Context, h *host, _ *rand.Rand) error { return h.endDaemon(ctx, syscall.SIGTERM) }},
	{"upgrade keeper", upgradeKeeper},
}

// troubleLimit is how long daemon and keeper may take to be back.
const troubleLimit = 3 * time.Minute

// havoc kills one of our programs now and then, for d.
func (s *soak) havoc(ctx context.Context, r *rand.Rand, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	// Every 30 to 60 seconds, in a short soak more often: each kind happens once.
	pause := min(30*time.Second, d/time.Duration(len(havocs)+2)*2/3)
	order := r.Perm(len(havocs))
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause + time.Duration(r.Int64N(int64(pause)))):
		}
		next := havocs[r.IntN(len(havocs))]
		if turn < len(order) {
			next = havocs[order[turn]]
		}
		end := s.h.begin(next.name)
		err := next.do(context.WithoutCancel(ctx), s.h, r)
		end()
		if err != nil {
			s.failed("%s: %v\n%s", next.name, err, s.h.logs())
		}
	}
}

func (h *host) endDaemon(ctx context.Context, sig syscall.Signal) error {
	old := h.daemonPid()
	h.signalDaemon(sig)
	return h.answers(ctx, troubleLimit, func(i api.Info) bool { return i.Pid != old })
}

func (h *host) killKeeper(ctx context.Context) error { return h.killAndAwait(ctx, h.keeperPid(ctx)) }

func (h *host) killAndAwait(ctx context.Context, keeper int) error {
	if err := h.shoot(keeper); err != nil {
		return err
	}
	return h.answers(ctx, troubleLimit, func(i api.Info) bool { return i.KeeperPid != keeper })
}

// shoot is kill -9 of the keeper.
func (h *host) shoot(keeper int) error {
	if keeper <= 1 {
		return fmt.Errorf("the keeper has pid %d", keeper)
	}
	h.mu.Lock()
	h.keepers++
	h.mu.Unlock()
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// upgradeKeeper puts another build in place and asks for it. Its pid stays.
func upgradeKeeper(ctx context.Context, h *host, r *rand.Rand) error {
	old := h.keeperPid(ctx)
	if err := h.newKeeper(1 + r.IntN(1<<20)); err != nil {
		return err
	}
	if _, err := h.client.Reload(ctx); err != nil {
		return err
	}
	return h.answers(ctx, troubleLimit, func(i api.Info) bool { return i.KeeperPid == old })
}

// forgetKills begins to count anew.
func (h *host) forgetKills() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kills = map[string]int{}
}
