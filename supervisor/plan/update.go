package plan

import "github.com/wherry-run/wherry/supervisor/unit"

// Update gives a live run the limits of the current revision. It is no
// replacement: what differs in limits alone is the same run.
const Update Kind = "update"

// adjust plans for a run that stays, and may have other limits than it should.
func (p *planner) adjust(u *wanted, s *slot, r Run) {
	if r.Phase != Up || r.Limits == "" || r.Limits == unit.LimitsOf(u.Unit) || p.busyRun(s, r) {
		return
	}
	if p.Now.Before(r.UpdateAt) {
		p.wait(Waiting{Unit: u.name, Instance: s.instance, Until: r.UpdateAt,
			Reason: "its limits could not be changed; they are tried again"})
		return
	}
	p.act(Update, u, s, r.ID, "its limits are to be other ones")
}
