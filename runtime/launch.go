package runtime

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// launchDeadline is how long a new keeper may take to answer.
const launchDeadline = 20 * time.Second

// maxKeeperLog is the size at which the keeper's own log is put aside, when a
// keeper starts.
const maxKeeperLog = 4 << 20

const keeperName = "wherry-keeper"

// keeperBinary finds the keeper.
func keeperBinary(want string) (string, error) {
	if want != "" {
		return filepath.Abs(want)
	}
	places := []string{"/usr/lib/wherry/" + keeperName}
	if self, err := os.Executable(); err == nil {
		places = append([]string{filepath.Join(filepath.Dir(self), keeperName)}, places...)
	}
	for _, p := range places {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: not in %v: %w", keeperName, places, os.ErrNotExist)
}

// launch starts a keeper that outlives this process: in a session of its own
// and, by its own doing, in a control group of its own. It returns once the
// keeper answers. One that ends at once may have found that another one does.
func (r *Runtime) launch(ctx context.Context) error {
	binary, err := keeperBinary(r.options.Keeper)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.layout.RunDir, 0o711); err != nil {
		return err
	}
	log, err := openKeeperLog(r.layout.Log())
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	ready, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(binary, "--root", r.options.Root, "--run-dir", r.options.RunDir,
		"--cgroup-parent", r.options.CgroupParent, "--own-cgroup", "--ready-fd", "3")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", binary, err)
	}
	ended := make(chan int, 1)
	go func() { // reaps it if it dies before us
		_ = cmd.Wait()
		ended <- cmd.ProcessState.ExitCode()
	}()
	err = awaitReady(ctx, ready)
	if errors.Is(err, errEndedAtOnce) {
		switch <-ended {
		case wire.ExitSecond:
			return errSecond
		case -1: // by a signal
			err = errKilled
		}
	}
	if err != nil {
		return fmt.Errorf("start %s: %w%s", binary, err, tail(r.layout.Log(), from))
	}
	return nil
}

var (
	errEndedAtOnce = errors.New("it ended at once")
	errKilled      = errors.New("it was killed")
	// errSecond: another keeper holds the lock.
	errSecond = errors.New("another keeper is at work, and does not answer")
)

// secondPause is how long to wait before it is asked again whether it answers.
const secondPause = 50 * time.Millisecond

// launchTries is how often a keeper that is killed before it is of use is started again.
const launchTries = 3

// dialOrStart starts a keeper and connects to it, or to one that somebody else, such as a
// daemon that was killed right after, has started a moment ago: that one holds the lock, but
// answers only once it has adopted the containers. If it dies over that, it is our turn.
func (r *Runtime) dialOrStart(ctx context.Context) (*link, error) {
	killed := 0
	for end := time.Now().Add(launchDeadline); ; {
		lerr := r.launch(ctx)
		l, err := dial(ctx, r.layout.Socket()) // also if the launch failed: another one may have been faster
		switch {
		case err == nil:
			return l, nil
		case errors.Is(lerr, errSecond) && time.Now().Before(end):
		case (errors.Is(lerr, errKilled) || lerr == nil && !answered(err)) && killed < launchTries:
			killed++
		default:
			return nil, cmp.Or(lerr, err)
		}
		select {
		case <-time.After(secondPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-r.ctx.Done():
			return nil, r.ctx.Err()
		}
	}
}

// answered tells of an error of dial whether somebody answers, but not as we expect:
// a second keeper would not help.
func answered(err error) bool {
	return errors.Is(err, wire.ErrProtocol) || errors.Is(err, os.ErrPermission)
}

func openKeeperLog(path string) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > maxKeeperLog {
		os.Rename(path, path+".1")
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// awaitReady waits for the keeper's word, or for its end.
func awaitReady(ctx context.Context, ready *os.File) error {
	ready.SetReadDeadline(time.Now().Add(launchDeadline))
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := io.ReadFull(ready, make([]byte, 1))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF):
		return errEndedAtOnce
	}
	return err
}

// tail is what the keeper said since its log was from bytes long, at most its
// last lines.
func tail(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, from, 1<<20))
	if err != nil || len(b) == 0 {
		return ""
	}
	b = bytes.TrimSpace(b)
	if len(b) > 500 {
		b = b[len(b)-500:]
	}
	return ": " + string(b)
}
