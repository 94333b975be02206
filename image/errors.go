package image

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/disk"
	"github.com/wherry-run/wherry/image/internal/registry"
)

// Further errors that callers tell apart with errors.Is.
var (
	ErrDenied      = registry.ErrDenied                                        // by the registry
	ErrUnavailable = registry.ErrUnavailable                                   // may pass by itself
	ErrNoSpace     = error(syscall.ENOSPC)                                     // the message has the numbers
	ErrLocked      = errors.New("image store is in use")                       // by another process or Store
	ErrDamaged     = errors.New("it is damaged or gone, pull the image again") // a layer, at Prepare
	ErrPlatform    = errors.New("image is not made for the platform")          // asked for
)

// Step names a part of a pull. The name stands in errors and progress.
type Step string

// The steps of a pull, in order. For one layer fetch, verify and unpack overlap.
const (
	StepResolve Step = "resolve"
	StepTrust   Step = "trust"
	StepFetch   Step = "fetch"
	StepVerify  Step = "verify"
	StepUnpack  Step = "unpack"
	StepCommit  Step = "commit"
)

// What Progress.Step says besides the steps.
const (
	ProgressExists = "exists" // the layer is there already
	ProgressDone   = "done"
)

// StepError is a failed step of a pull.
type StepError struct {
	Step   Step
	Object string // the image's name, or a blob's digest
	Image  string // whose blob it is; empty if Object is the image
	Err    error
}

func (e *StepError) Error() string {
	if e.Image != "" {
		return fmt.Sprintf("%s %s of %s: %v", e.Step, e.Object, e.Image, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.Step, e.Object, e.Err)
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// stepFailed adds the step, unless an inner one is known, and translates
// errors of the parts.
func (s *Store) stepFailed(step Step, object string, err error) error {
	if err == nil {
		return nil
	}
	var inner *StepError
	if errors.As(err, &inner) {
		return err
	}
	var mismatch *blob.MismatchError
	var space *disk.NoSpaceError
	switch {
	case errors.As(err, &mismatch):
		step, err = StepVerify, &corruptError{mismatch}
	case errors.Is(err, syscall.ENOSPC) && !errors.As(err, &space):
		err = fmt.Errorf("%w (%w)", s.room.full(), err)
	}
	return &StepError{Step: step, Object: object, Err: err}
}

// ofImage names the image in the error of one of its blobs. Several pulls may
// wait for one blob and share its error: it is not changed, but copied.
func ofImage(name string, err error) error {
	var step *StepError
	if !errors.As(err, &step) || step.Image != "" || step.Object == name || err.Error() != step.Error() {
		return err
	}
	named := *step
	named.Image = name
	return &named
}

type corruptError struct{ *blob.MismatchError }

func (e *corruptError) Is(target error) bool { return target == ErrCorrupt }
