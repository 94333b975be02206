package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// systemdSocket is systemd's own. It is there on a host without a D-Bus daemon,
// or with one that is down; systemctl uses it for root, too.
const systemdSocket = "/run/systemd/private"

// systemdDeadline is how long systemd may take for one request. On a small host it
// answers nobody for seconds while it reloads its units.
const systemdDeadline = 30 * time.Second

// errNoAnswer is why a request to systemd is given up.
var errNoAnswer = errors.New("systemd does not answer; `systemctl is-system-running` tells whether it answers anybody")

// serviceManager is the way to systemd. Each request has a connection of its own:
// none is left to go stale, as all do when systemd executes itself anew.
type serviceManager struct {
	socket   string
	deadline time.Duration
}

// ask connects and has f ask, within the deadline.
func (m serviceManager) ask(ctx context.Context, f func(context.Context, *systemd.Conn) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.deadline, fmt.Errorf("%w (%v)", errNoAnswer, m.deadline))
	defer cancel()
	conn, err := systemd.NewConnection(func() (*dbus.Conn, error) { return m.dial(ctx) })
	if err == nil {
		defer conn.Close()
		err = f(ctx, conn)
	} else if ctx.Err() == nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	if ctx.Err() != nil { // what went wrong is then only that
		return context.Cause(ctx)
	}
	return err
}

// dial is a connection, which ends with ctx.
func (m serviceManager) dial(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.Dial("unix:path="+m.socket, dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal("0")}); err != nil { // no look-up of a user's name
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// scopeGone is how long systemd may take to forget a scope whose processes have ended.
const scopeGone = 10 * time.Second

// startScope makes a scope around process pid and waits until it stands.
func (m serviceManager) startScope(ctx context.Context, s scope, pid int) error {
	return m.ask(ctx, func(ctx context.Context, conn *systemd.Conn) error {
		for end := time.Now().Add(scopeGone); ; {
			done := make(chan string, 1)
			_, err := conn.StartTransientUnitContext(ctx, s.name, "fail", s.properties(pid), done)
			switch {
			case err == nil:
				return awaitJob(ctx, done)
			case !hasName(err, "org.freedesktop.systemd1.UnitExists") || time.Now().After(end):
				return err
			}
			// One of that name is just going, or has failed and is kept to be looked at.
			conn.ResetFailedUnitContext(ctx, s.name)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
}

func awaitJob(ctx context.Context, done <-chan string) error {
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("systemd: the job has ended with %q", result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// setProperties changes a unit until the next boot.
func (m serviceManager) setProperties(ctx context.Context, unit string, values map[string]uint64) error {
	return m.ask(ctx, func(ctx context.Context, conn *systemd.Conn) error {
		var list []systemd.Property
		for name, v := range values {
			list = append(list, property(name, v))
		}
		return conn.SetUnitPropertiesContext(ctx, unit, true, list...)
	})
}

func property(name string, value any) systemd.Property {
	return systemd.Property{Name: name, Value: dbus.MakeVariant(value)}
}

// hasName tells whether an error of D-Bus has that name.
func hasName(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}
