package apitest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/copying"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Attach connects to a unit that runs. It writes what it reads, and ends at the end of its input.
func (d *Daemon) Attach(_ context.Context, r api.AttachRequest, by string) (api.Attached, *os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.called("Attach", r.Target, by)
	name, _, _ := strings.Cut(r.Target, ".")
	if u := d.units[name]; err == nil && (u == nil || u.Running == 0) {
		err = fmt.Errorf("unit %s: %w", name, api.ErrNotRunning)
	}
	if err != nil {
		return api.Attached{}, nil, err
	}
	from, to, err := os.Pipe()
	if err != nil {
		return api.Attached{}, nil, err
	}
	d.attached++
	a := api.Attached{Unit: name, Instance: name + ".1", Container: "app", Run: fmt.Sprintf("%s.1-%d", name, d.attached), Stdin: true, Once: true}
	read := make(chan struct{})
	d.inputs[a.Run] = read
	go func() {
		defer close(read)
		defer from.Close()
		in := bufio.NewReader(from)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			d.Write(name, line)
		}
	}()
	return a, to, nil
}

// Output is what the unit writes.
func (d *Daemon) Output(ctx context.Context, a api.Attached, tail int) iter.Seq2[api.LogLine, error] {
	return d.Logs(ctx, api.LogsRequest{Target: a.Unit, Follow: true, Tail: tail})
}

// CloseInput ends the unit with success, once it has read what was sent.
func (d *Daemon) CloseInput(_ context.Context, a api.Attached) error {
	d.mu.Lock()
	read := d.inputs[a.Run]
	d.mu.Unlock()
	<-read
	d.End(a.Unit, api.Exit{})
	return nil
}

// SignalMain ends the unit by the signal.
func (d *Daemon) SignalMain(_ context.Context, a api.Attached, signal, by string) error {
	d.mu.Lock()
	err := d.called("SignalMain", a.Unit+" "+signal, by)
	d.mu.Unlock()
	if err == nil {
		d.End(a.Unit, api.Exit{Signal: signal})
	}
	return err
}

// WaitRun waits for the unit's end.
func (d *Daemon) WaitRun(ctx context.Context, a api.Attached) (api.Exit, error) {
	return d.WaitExit(ctx, a.Unit)
}

// OpenRoot opens the folder Root for whatever unit there is.
func (d *Daemon) OpenRoot(_ context.Context, target, what, by string) (copying.Root, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("OpenRoot", target+" "+what, by); err != nil {
		return copying.Root{}, err
	}
	f, err := os.Open(d.Root)
	return copying.Root{Dir: f}, err
}

// Debug attaches to the unit itself.
func (d *Daemon) Debug(ctx context.Context, r api.DebugRequest, by string, _ func(image.Progress)) (api.Attached, error) {
	d.mu.Lock()
	err := d.called("Debug", r.Target+" "+r.Image, by)
	d.mu.Unlock()
	a, f, aerr := d.Attach(ctx, api.AttachRequest{Target: r.Target}, by)
	if f != nil {
		f.Close()
	}
	return a, errors.Join(err, aerr)
}

// DebugInput is there for nobody.
func (d *Daemon) DebugInput(context.Context, api.Attached) (*os.File, error) { return nil, nil }

// EndDebug is noted.
func (d *Daemon) EndDebug(_ context.Context, a api.Attached) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.called("EndDebug", a.Unit, "")
}

// ExecConsole runs a script on a real terminal; "cat" reads from it until its end.
func (d *Daemon) ExecConsole(ctx context.Context, r api.ExecRequest, by string, console *os.File) (api.Exit, error) {
	if err := check(r.Args); err != nil {
		return api.Exit{}, err
	}
	master, slave, err := openTerminal()
	if err != nil {
		return api.Exit{}, err
	}
	defer slave.Close()
	defer context.AfterFunc(ctx, func() { slave.SetDeadline(time.Unix(1, 0)) })()
	if r.Size != nil {
		_ = runtime.SetSize(master, r.Size.Rows, r.Size.Columns)
	}
	err = unix.Sendmsg(int(console.Fd()), []byte("terminal"), unix.UnixRights(int(master.Fd())), nil, 0)
	master.Close()
	if err != nil {
		return api.Exit{}, err
	}
	switch r.Args[0] {
	case "cat":
		_, _ = io.Copy(slave, slave) // a hangup is an error here
		return api.Exit{Signal: "SIGHUP"}, nil
	case "size":
		for range 2 {
			in := bufio.NewReader(slave)
			rows, columns, _ := runtime.Size(slave)
			fmt.Fprintf(slave, "%d %d\n", rows, columns)
			_, _ = in.ReadString('\n')
		}
		return api.Exit{}, nil
	}
	return d.Exec(ctx, r, by, nil, slave, slave)
}

func openTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		master.Close()
	}
	return master, slave, err
}
