package term

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Exit codes: a documented contract. `exec` and `run` end with the command's
// own code, or one of the last four.
const (
	ExitDone          = 0
	ExitFailed        = 1 // `diff`: changes found
	ExitUsage         = 2 // usage, or an invalid unit
	ExitNotRunning    = 3 // not running, or not healthy
	ExitNoSuchUnit    = 4
	ExitUnreachable   = 5
	ExitTimeout       = 124 // a wait timed out
	ExitOurs          = 125 // `exec` and `run`: our failure, not the command's
	ExitNotExecutable = 126
	ExitNotFound      = 127
	ExitInterrupted   = 130 // Ctrl-C
)

// Failure is an error with the code to end with and what to do about it.
type Failure struct {
	Code int
	Err  error // nil: everything is said, only the code counts
	Hint string
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return fmt.Sprintf("exit code %d", f.Code)
	}
	return f.Err.Error()
}

func (f *Failure) Unwrap() error { return f.Err }

// Code ends a command with a code and no message.
func Code(code int) error {
	if code == 0 {
		return nil
	}
	return &Failure{Code: code}
}

// Usage is an error of how a command was called.
func Usage(format string, args ...any) error {
	return &Failure{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Report writes the error and its hint to s and returns the code to end with.
func Report(s Stream, err error) int {
	if err == nil {
		return ExitDone
	}
	f := &Failure{Code: ExitFailed, Err: err}
	errors.As(err, &f)
	if f.Err != nil {
		// Several mistakes are several lines; what is in a line is not trusted.
		lines := strings.Split(err.Error(), "\n")
		for i := range lines {
			lines[i] = Clean(lines[i])
		}
		fmt.Fprintf(s, "%s %s\n", s.Paint(Bad, "error:"), strings.Join(lines, "\n"))
	}
	if f.Hint != "" {
		Hint(s, f.Hint)
	}
	return f.Code
}

// Hint writes a hint.
func Hint(s Stream, text string) { note(s, Faint, "hint:", text) }

// Warn writes a warning.
func Warn(s Stream, text string) { note(s, Busy, "warning:", Clean(text)) }

func note(s Stream, style Style, word, text string) {
	_, _ = io.WriteString(s, s.Paint(style, word)+" "+text+"\n")
}
