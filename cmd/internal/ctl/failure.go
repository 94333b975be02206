package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// codes are the exit codes of the daemon's errors; others are ExitFailed.
var codes = map[string]int{
	api.CodeInvalid:    term.ExitUsage,
	api.CodeAmbiguous:  term.ExitUsage,
	api.CodeNotFound:   term.ExitNoSuchUnit,
	api.CodeNotRunning: term.ExitNotRunning,
	api.CodeTimeout:    term.ExitTimeout,
}

// cannot is the failure of doing what to object: "cannot start web: ...".
// It has the exit code and the command to type next.
func (a *app) cannot(what, object string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var given *term.Failure
	if errors.As(err, &given) {
		return err
	}
	f := &term.Failure{Code: term.ExitFailed}
	var e *api.Error
	switch {
	case errors.Is(err, api.ErrUnreachable):
		f.Code, f.Hint = term.ExitUnreachable, a.unreachableHint(err)
	case errors.As(err, &e):
		f.Hint = e.Hint
		if code, ok := codes[e.Code]; ok {
			f.Code = code
		}
		switch {
		case e.Code == api.CodeForbidden:
			f.Hint = "sudo " + a.again()
		case e.Code == api.CodeNoOperation && f.Hint == "":
			f.Hint = "`wherry ctl status` shows the pulls under way"
		case e.Code == api.CodeNoSpace && f.Hint == "":
			f.Hint = "`wherry ctl image gc --all` deletes images that nobody needs; `wherry ctl image list -v` shows what takes the space"
		case e.Code == api.CodeUntrusted && f.Hint == "":
			f.Hint = "the registry's policy in wherry.yaml decides"
		case e.Code == api.CodeNotFound && f.Hint == "" && strings.Contains(e.Message, api.ErrNoSuchUnit.Error()):
			f.Hint = "`wherry ctl list` shows the units"
		case e.Code == api.CodeNotRunning && f.Hint == "" && object != "":
			unit, _ := api.SplitTarget(object)
			f.Hint = "`wherry ctl status " + unit + "` says why"
		}
	}
	text := strings.TrimPrefix(err.Error(), api.ErrInvalid.Error()+": ") // the code says so
	text = strings.TrimPrefix(text, what+": ")                           // "cannot save x: save: ..."
	if object != "" {
		what += " " + object
		text = strings.TrimPrefix(text, "unit "+object+": ")
	}
	text = strings.TrimPrefix(text, what+": ") // "cannot pull x: pull x: ..."
	f.Err = fmt.Errorf("cannot %s: %w", what, &said{text, err})
	return f
}

// said is an error with other words.
type said struct {
	text string
	error
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.error }

// unreachableHint names the command to type when nobody answers.
func (a *app) unreachableHint(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "sudo " + a.again()
	}
	sudo := ""
	if os.Geteuid() != 0 {
		sudo = "sudo "
	}
	if a.socket != DefaultSocket {
		return fmt.Sprintf("start a daemon there: %swherry daemon --socket %s", sudo, a.socket)
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return "start it: sudo systemctl start wherry"
	}
	return "start it: " + sudo + "wherry daemon"
}

// cannotOurs is cannot for exec and run: the code is never one that the
// command itself could mean.
func (a *app) cannotOurs(what, object string, err error) error {
	err = a.cannot(what, object, err)
	var f *term.Failure
	if !errors.As(err, &f) || f.Err == nil {
		return err
	}
	f.Code = term.ExitOurs
	var e *api.Error
	if errors.As(f.Err, &e) {
		switch e.Code {
		case api.CodeCommandNotFound:
			f.Code = term.ExitNotFound
		case api.CodeNotExecutable:
			f.Code = term.ExitNotExecutable
		}
	}
	return f
}

// unknownCode is the code of an exit that nobody could see; never 0.
const unknownCode = 255

// exitCode is the exit as a shell has it.
func exitCode(e api.Exit) int {
	switch {
	case e.Unknown:
		return unknownCode
	case e.Signal != "":
		return 128 + int(unix.SignalNum(e.Signal))
	}
	return e.Code
}
