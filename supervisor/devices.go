package supervisor

import (
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/cdi"
	"github.com/wherry-run/wherry/runtime/spec"
)

// hostDevices are the devices that a container gets, those of CDI with what else they
// change in its specification. A unit's own come last: they win.
func hostDevices(res spec.Result, names []string) ([]runtime.Device, error) {
	list, err := cdi.Registry{}.Apply(res.Spec, names)
	for _, d := range res.Devices {
		list = append(list, runtime.Device{Source: d.Source, Target: d.Target, Permissions: d.Permissions})
	}
	return list, err
}
