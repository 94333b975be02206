package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// host is one daemon with folders, bridge and groups of its own. It starts the daemon
// again as a service manager would.
type host struct {
	tag, dir           string
	bin, keeper        string // the keeper is a copy, which an upgrade replaces
	root, run, units   string
	socket, configFile string
	subnet             string
	client             *api.Client
	failed             func(format string, args ...any)

	wg sync.WaitGroup

	mu       sync.Mutex
	daemon   *exec.Cmd // nil: between two
	stopping bool      // it shall not come back
	killed   bool      // it was us who ended it
	troubles []*trouble
	kills    map[string]int
	keepers  int // deaths of the keeper
}

// trouble is a time in which operations may be cut off, by our own doing.
type trouble struct {
	what     string
	from, to time.Time // to is zero while it lasts
}

func newHost(o options, failed func(string, ...any)) (*host, error) {
	id := make([]byte, 3)
	_, _ = rand.Read(id)
	tag := "whs" + hex.EncodeToString(id)
	dir := filepath.Join("/tmp", tag) // short: a Unix socket's path may have 107 bytes
	h := &host{tag: tag, dir: dir, bin: o.bin, keeper: dir + "/bin/wherry-keeper", root: dir + "/lib", run: dir + "/run", units: dir + "/units",
		socket: dir + "/run/wherry.sock", configFile: dir + "/wherry.yaml", failed: failed, kills: map[string]int{}}
	for _, d := range []string{h.root, h.run, h.units, dir + "/bin"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	h.client = api.Dial(h.socket)
	h.subnet = ownSubnet()
	return h, h.newKeeper(0)
}

// ownSubnet is a part of 198.18.0.0/15, which RFC 2544 sets apart for tests like this. Daemons that look for a free
// subnet at the same moment, as those of other tests may, all find the same one.
func ownSubnet() string {
	const parts = 128
	taken, _ := net.InterfaceAddrs()
	for i := range parts {
		n := (os.Getpid() + i) % parts
		_, p, err := net.ParseCIDR(fmt.Sprintf("198.%d.%d.0/22", 18+n/64, n%64*4))
		if err == nil && !slices.ContainsFunc(taken, func(a net.Addr) bool { ip, ok := a.(*net.IPNet); return ok && p.Contains(ip.IP) }) {
			return p.String()
		}
	}
	return ""
}

// newKeeper puts a keeper of another build in place of the file: the same with something
// behind it, which the loader does not mind.
func (h *host) newKeeper(build int) error {
	b, err := os.ReadFile(h.bin + "/wherry-keeper")
	if err != nil {
		return err
	}
	if build > 0 {
		b = fmt.Appendf(b, "build %d", build%10) // of the same length, or the disk would seem to be leaked into
	}
	// A child that is just being started would hold a copy of the descriptor until its exec, and nobody can execute
	// what somebody has open for writing.
	syscall.ForkLock.RLock()
	err = os.WriteFile(h.keeper+".new", b, 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	return os.Rename(h.keeper+".new", h.keeper)
}

// start starts the daemon and whoever brings it back.
func (h *host) start(ctx context.Context, config string) error {
	if err := os.WriteFile(h.configFile, []byte(config), 0o644); err != nil {
		return err
	}
	if err := h.spawn(); err != nil {
		return err
	}
	return h.answers(ctx, troubleLimit, func(api.Info) bool { return true })
}

// answers waits until a daemon and its keeper are there, and ok says so.
func (h *host) answers(ctx context.Context, limit time.Duration, ok func(api.Info) bool) error {
	for end := time.Now().Add(limit); ; {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		i, err := h.client.Info(call)
		cancel()
		switch {
		case err == nil && i.KeeperPid != 0 && ok(i):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return fmt.Errorf("daemon: not there within %v: %+v, %v\n%s", limit, i, err, h.logs())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (h *host) spawn() error {
	log, err := os.OpenFile(h.dir+"/daemon.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.Command(h.bin+"/wherry", "daemon", "--config", h.configFile, "--root", h.root, "--run-dir", h.run, "--units", h.units,
		"--socket", h.socket, "--bridge", h.tag, "--cgroup-parent", h.tag, "--keeper", h.keeper, "--subnet", h.subnet)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C at the terminal is ours
	if err := c.Start(); err != nil {
		return err
	}
	h.mu.Lock()
	h.daemon, h.killed = c, false
	h.mu.Unlock()
	h.wg.Go(func() { h.await(c) })
	return nil
}

// restartPause is what wherry.service has as RestartSec.
const restartPause = 100 * time.Millisecond

// await brings back a daemon that has ended.
func (h *host) await(c *exec.Cmd) {
	err := c.Wait()
	h.mu.Lock()
	h.daemon = nil
	killed, stopping := h.killed, h.stopping
	h.mu.Unlock()
	if !killed && !stopping {
		h.failed("the daemon ended by itself: %v: %s\n%s", err, lastLine(h.dir+"/daemon.log"), h.logs())
	}
	if stopping {
		return
	}
	time.Sleep(restartPause)
	if err := h.spawn(); err != nil {
		h.failed("start the daemon: %v", err)
	}
}

// signalDaemon ends the daemon that is there.
func (h *host) signalDaemon(sig syscall.Signal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.daemon != nil {
		h.killed = true
		_ = h.daemon.Process.Signal(sig)
	}
}

// stop ends the daemon for good.
func (h *host) stop() {
	h.mu.Lock()
	h.stopping = true
	h.mu.Unlock()
	h.signalDaemon(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { h.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		h.failed("the daemon did not end within a minute of SIGTERM\n%s", h.logs())
		h.signalDaemon(syscall.SIGKILL)
		<-done
	}
}

func (h *host) daemonPid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.daemon == nil {
		return 0
	}
	return h.daemon.Process.Pid
}

// keeperPid is 0 if nobody tells.
func (h *host) keeperPid(ctx context.Context) (pid int) {
	_ = h.answers(ctx, troubleLimit, func(i api.Info) bool { pid = i.KeeperPid; return true })
	return pid
}

// begin notes trouble that we make; end is called when all is well again.
func (h *host) begin(what string) (end func()) {
	t := &trouble{what: what, from: time.Now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.troubles = append(h.troubles, t)
	h.kills[what]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		t.to = time.Now()
	}
}

// troubled tells whether something was killed in that time, or shortly before.
func (h *host) troubled(from, to time.Time) bool {
	const after = 3 * time.Second
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.troubles {
		if t.from.Before(to) && (t.to.IsZero() || t.to.Add(after).After(from)) {
			return true
		}
	}
	return false
}

// keeperDeaths counts how often it was killed so far.
func (h *host) keeperDeaths() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keepers
}

const logTail = 6 << 10

// logs are the last words of daemon and keeper.
func (h *host) logs() string {
	return "--- daemon.log\n" + tail(h.dir+"/daemon.log") + "--- keeper.log\n" + tail(h.run+"/keeper.log")
}

// lastLine is where a program says why it ends.
func lastLine(file string) string {
	text := strings.TrimSpace(tail(file))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

func tail(file string) string {
	b, _ := os.ReadFile(file)
	if len(b) > logTail {
		b = b[len(b)-logTail:]
		b = b[bytes.IndexByte(b, '\n')+1:]
	}
	return string(b)
}
