package keeper

import (
	"os"
	"sync"
	"time"
)

// Of a keeper that a service manager runs and asks to end. The containers run on and the next keeper goes on with them,
// just as after a kill, so nothing here may take long; but what can be brought to an end is, so that no output stands in a log twice.
const (
	quitLaunches = 3 * time.Second // for starts and execs to get through; what does not is undone by the next keeper
	quitOutput   = 2 * time.Second // for logs: a disk may hang
	quitNotes    = 2 * time.Second // for the service manager's store
)

// terminated is SIGTERM. A service manager that asks gets what it wants, as it would kill us in the end; anybody else is
// refused while there is something to keep.
func (d *daemon) terminated() {
	if os.Getenv(envManaged) == "" {
		if err := d.shutdown(); err != nil {
			d.logger.Warn("not ending", "err", err)
		}
		return
	}
	d.logger.Info("ending, containers run on", "containers", len(d.k.list()))
	d.quit()
	os.Exit(0)
}

// quit makes the process ready to end.
func (d *daemon) quit() {
	d.k.heirlooms.store.notify("STOPPING=1")
	for deadline := time.Now().Add(quitLaunches); ; time.Sleep(2 * time.Millisecond) {
		if d.k.launching.TryLock() { // for good
			d.k.rest(quitOutput)
			break
		}
		if time.Now().After(deadline) {
			d.logger.Warn("a start or an exec does not get through, it is left behind")
			break
		}
	}
	d.k.heirlooms.store.flush(quitNotes)
}

// rest stops copying output. What containers write from now on waits in their pipes and terminals.
func (k *Keeper) rest(limit time.Duration) {
	k.mu.Lock()
	var pumps []*pump
	for _, c := range k.containers {
		if c.pump != nil {
			pumps = append(pumps, c.pump)
		}
	}
	k.mu.Unlock()
	var all sync.WaitGroup
	for _, p := range pumps {
		all.Go(p.rest)
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
		k.logger.Warn("a log takes no output, the next keeper goes on with it")
	}
}

// rest is stop for a container that runs on. A stop that comes later never returns: the end of a container is for the next keeper
// to work out, which may find more output.
func (p *pump) rest() {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return
	}
	p.over, p.resting = true, true
	p.mu.Unlock()
	p.finish()
}
