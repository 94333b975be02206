package api

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is, on both sides of the socket:
// package supervisor returns them, and an *Error that came over the wire
// matches the one its Code stands for.
var (
	ErrNoSuchUnit      = errors.New("no such unit")
	ErrNoSuchImage     = errors.New("no such image")
	ErrNoFile          = errors.New("no such file")
	ErrNoSuchOperation = errors.New("no such operation")
	ErrAmbiguous       = errors.New("ambiguous name")
	ErrExists          = errors.New("unit already exists")
	ErrNotRunning      = errors.New("not running")
	ErrInvalid         = errors.New("invalid")
	ErrTimeout         = errors.New("timed out")
	ErrForbidden       = errors.New("not allowed")
	ErrUnavailable     = errors.New("daemon is stopping")
	ErrShuttingDown    = errors.New("the host is shutting down")
	ErrAborted         = errors.New("aborted")
	ErrNoSpace         = errors.New("not enough space")
	ErrUntrusted       = errors.New("image is not trusted")
	ErrCorrupt         = errors.New("content does not match its digest")
)

// Codes of an Error. They are part of the wire contract.
const (
	CodeInvalid         = "invalid"
	CodeNotFound        = "not_found"       // a unit
	CodeImageNotFound   = "image_not_found" // an image, here or in the registry
	CodeNoFile          = "file_not_found"  // in a container
	CodeNoOperation     = "operation_not_found"
	CodeAmbiguous       = "ambiguous"
	CodeConflict        = "conflict" // it exists, or it is in use
	CodeNotRunning      = "not_running"
	CodeTimeout         = "timeout"
	CodeForbidden       = "forbidden"
	CodeUnavailable     = "unavailable"
	CodeShuttingDown    = "shutting_down" // the host, see ShutdownRequest
	CodeCommandNotFound = "command_not_found"
	CodeNotExecutable   = "not_executable"
	CodeAborted         = "aborted"   // by somebody
	CodeNoSpace         = "no_space"  // on the daemon's disk
	CodeUntrusted       = "untrusted" // the trust policy refuses an image
	CodeCorrupt         = "corrupt"   // stored or sent content is damaged
	CodeInternal        = "internal"
)

// sentinels maps each code to the error it stands for.
var sentinels = map[string]error{
	CodeInvalid:       ErrInvalid,
	CodeNotFound:      ErrNoSuchUnit,
	CodeImageNotFound: ErrNoSuchImage,
	CodeNoFile:        ErrNoFile,
	CodeNoOperation:   ErrNoSuchOperation,
	CodeAmbiguous:     ErrAmbiguous,
	CodeConflict:      ErrExists,
	CodeNotRunning:    ErrNotRunning,
	CodeTimeout:       ErrTimeout,
	CodeForbidden:     ErrForbidden,
	CodeUnavailable:   ErrUnavailable,
	CodeShuttingDown:  ErrShuttingDown,
	CodeAborted:       ErrAborted,
	CodeNoSpace:       ErrNoSpace,
	CodeUntrusted:     ErrUntrusted,
	CodeCorrupt:       ErrCorrupt,
}

// Error is the body of every failed call.
type Error struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
	Code    string `json:"code"` // one of the Code constants
}

func (e *Error) Error() string { return e.Message }

// Is reports whether target is the sentinel that the code stands for.
func (e *Error) Is(target error) bool {
	s := sentinels[e.Code]
	return s != nil && s == target
}

// ErrUnreachable matches every *UnreachableError.
var ErrUnreachable = errors.New("daemon unreachable")

// UnreachableError says that nobody answers at the socket, or that we may not
// ask: then errors.Is(err, fs.ErrPermission).
type UnreachableError struct {
	Socket string
	Err    error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("daemon at %s: %v", e.Socket, e.Err) }

// Unwrap gives the sentinel and the cause.
func (e *UnreachableError) Unwrap() []error { return []error{ErrUnreachable, e.Err} }
