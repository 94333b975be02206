package daemon

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// gcKeys say when images that nobody needs are deleted.
var gcKeys = []key[Config]{
	{name: "high", missing: "85%; at this share of the disk in use, unneeded images begin to go", set: func(c *Config, n node, p *problems) {
		p.gc.high = n
		n.percent(p, &c.GC.High)
	}},
	{name: "low", missing: "80%; and go until it is reached", set: func(c *Config, n node, p *problems) {
		p.gc.low = n
		n.percent(p, &c.GC.Low)
	}},
	{name: "min_age", missing: "1h; images pulled or used in this time stay", set: setMinAge},
	{name: "keep_revisions", missing: "5; revisions of a unit whose images stay", set: func(c *Config, n node, p *problems) { n.count(p, &c.GC.KeepRevisions) }},
	{name: "reserve", missing: "a twentieth of the disk, at most 1GiB; pulls leave it free", set: setReserve},
}

// gcNodes are what must fit together.
type gcNodes struct{ high, low node }

// together checks what concerns several keys.
func (p *problems) together(c *Config) {
	if len(p.errors) > 0 || p.gc.high.value == nil && p.gc.low.value == nil {
		return
	}
	at := p.gc.low
	if at.value == nil {
		// Who names only the high mark means the low one below it.
		c.GC.Low = max(min(c.GC.Low, c.GC.High-5), 1)
		return
	}
	if c.GC.Low >= c.GC.High {
		p.add(at, fmt.Sprintf("%d%% is not below the high mark of %d%%", c.GC.Low, c.GC.High), "")
	}
}

// percent reads 85% or 85.
func (n node) percent(p *problems, to *int) {
	s, ok := n.scalar(p, "a share such as 85%")
	if !ok {
		return
	}
	v, err := strconv.Atoi(strings.TrimSuffix(s, "%"))
	if err != nil || v < 1 || v > 100 {
		p.add(n, fmt.Sprintf("want a share from 1%% to 100%%, not %q", s), "")
		return
	}
	*to = v
}

func setMinAge(c *Config, n node, p *problems) {
	s, ok := n.scalar(p, "a duration such as 24h")
	if !ok {
		return
	}
	d, err := unit.ParseDuration(s)
	if err != nil {
		p.add(n, err.Error(), "")
		return
	}
	if c.GC.MinAge = time.Duration(d); d == 0 {
		c.GC.MinAge = -1 // 0 is the default there
	}
}

func setReserve(c *Config, n node, p *problems) {
	if s, ok := n.value.(interface{ String() string }); ok && s.String() == "0" {
		c.Reserve = -1 // none
		return
	}
	n.size(p, &c.Reserve)
}
