package daemon

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/supervisor"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// defaultsKeys are what units get that do not say.
var defaultsKeys = []key[supervisor.Defaults]{
	{name: "userns", missing: "auto", set: func(d *supervisor.Defaults, n node, p *problems) {
		var s string
		if !n.text(p, &s) {
			return
		}
		if !slices.Contains([]string{"auto", "required", "host"}, s) {
			p.add(n, fmt.Sprintf("%q is unknown", s), "it is auto, required or host")
			return
		}
		d.UserNS = s
	}},
	{name: "ulimits", missing: "what the keeper has", set: setUlimits},
	{name: "shm_size", missing: "64MiB", set: func(d *supervisor.Defaults, n node, p *problems) { n.size(p, &d.ShmSize) }},
	{name: "restart_policy", later: true}, {name: "stop_grace_period", later: true},
}

// setUlimits reads a map such as {nofile: 65536, core: "0:unlimited"}, or {soft, hard} as in a unit file.
func setUlimits(d *supervisor.Defaults, n node, p *problems) {
	d.Ulimits = nil
	for _, child := range n.pairs(p) {
		value, ok := ulimitValue(child, p)
		if !ok {
			continue
		}
		u, err := unit.ParseUlimit(child.key + "=" + value)
		if err != nil {
			p.add(child, err.Error(), "")
			continue
		}
		d.Ulimits = append(d.Ulimits, u)
	}
	slices.SortFunc(d.Ulimits, func(a, b unit.Ulimit) int { return strings.Compare(a.Name, b.Name) })
}

func ulimitValue(n node, p *problems) (string, bool) {
	if !n.isMap() {
		return n.scalar(p, "a number, or SOFT:HARD")
	}
	var soft, hard string
	fill(p, n, []key[struct{}]{
		{name: "soft", set: func(_ *struct{}, n node, p *problems) { n.text(p, &soft) }},
		{name: "hard", set: func(_ *struct{}, n node, p *problems) { n.text(p, &hard) }},
	}, &struct{}{})
	if soft == "" || hard == "" {
		p.add(n, "want both soft and hard", "")
		return "", false
	}
	return soft + ":" + hard, true
}
