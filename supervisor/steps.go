package supervisor

import (
	"errors"
	"fmt"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
)

// The steps of a start, in order. The name stands in errors, logs and events,
// and is a fault point for tests. What the steps did is undone by the steps of
// a clean-up, in cleanup.go, which work from disk.
const (
	stepPull       = "pull"
	stepRecord     = "record"
	stepUserNS     = "userns"
	stepRootfs     = "rootfs"
	stepVolumes    = "volumes"
	stepNamespaces = "namespaces"
	stepNetwork    = "network"
	stepFiles      = "files"
	stepSpec       = "spec"
	stepProcess    = "process"
	stepOrder      = "depends_on" // it can never start
	stepAgain      = "again"      // what an earlier start of one of several containers has left goes
)

// The steps of a clean-up, in order.
const (
	stepContainer = "container"
	stepDetach    = "detach"
	stepLetGo     = "let go" // of the namespaces
	stepIDs       = "ids"
	stepRelease   = "release"
	stepForget    = "forget" // of the unit's logs and exits
	stepFolder    = "folder"
)

// StartError says which step of a start failed.
type StartError struct {
	Unit      string
	Instance  string
	Container string // one of several, empty: the whole
	Step      string
	Err       error
}

func (e *StartError) Error() string {
	return fmt.Sprintf("unit %s: container %s: %s", e.Unit, api.JoinTarget(e.Instance, e.Container), e.detail())
}

func (e *StartError) Unwrap() error { return e.Err }

// detail is the step and its cause. The runtime names its own steps.
func (e *StartError) detail() string {
	var inner *runtime.StepError
	if e.Step == stepProcess && errors.As(e.Err, &inner) {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.Step, e.Err)
}

// errDied ends everything at once, as a kill would. Only tests make it happen.
var errDied = errors.New("died at a fault point")
