package runtime

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound      = errors.New("no such container")
	ErrExists        = errors.New("container already exists")
	ErrNotRunning    = errors.New("container is not running")
	ErrKeeper        = errors.New("keeper unreachable")
	ErrNotStarted    = errors.New("the service manager has not started it")
	ErrCommand       = errors.New("command not found")          // exit code 127
	ErrNotExecutable = errors.New("command cannot be executed") // exit code 126
	ErrBusy          = errors.New("keeper still has running containers")
	ErrPaused        = errors.New("container is paused")
	ErrNoInput       = errors.New("container takes no input")
)

// Step names a part of the work of making a container. The name stands in
// errors, and with them in logs and events.
type Step string

// The steps that a start can fail in. Undo does not go through them: it works
// from what the keeper has written down.
const (
	StepRootfs  Step = "rootfs"
	StepCgroup  Step = "cgroup"
	StepLog     Step = "log"
	StepProcess Step = "process"
)

// StepError is a failed step.
type StepError struct {
	Step Step
	Err  error
}

func (e *StepError) Error() string { return fmt.Sprintf("%s: %v", e.Step, e.Err) }
func (e *StepError) Unwrap() error { return e.Err }
