package supervisor

import (
	"cmp"
	"context"

	"github.com/wherry-run/wherry/runtime"
)

// namespaces makes what the containers of the run share. One container alone makes
// most of its namespaces itself, which is faster.
func (st *start) namespaces(ctx context.Context) (err error) {
	def := &st.rec.Revision.Definition
	several := len(def.Containers) > 1
	n := runtime.Namespaces{
		Run: st.rec.Run, IDMap: st.idmap, Net: def.Network == "bridge" || def.Network != "host" && (several || st.idmap != nil),
		IPC: several && def.IPC != "host", UTS: several, PID: several && def.PID == "shared",
		Hostname: cmp.Or(def.Hostname, hostname(st.rec.Instance)), Pin: several,
	}
	if n.IDMap == nil && !n.Net && !n.IPC && !n.UTS && !n.PID {
		return nil
	}
	st.shared = true
	st.ns, err = st.s.rt.MakeNamespaces(ctx, n)
	return err
}
