package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Verdict is what a check of the host has come to.
type Verdict string

// Fail: wherry or some units do not work. Warn: something works worse than it could, or
// will fail one day. Skip: it cannot be looked at, Detail says why.
const (
	OK   Verdict = "ok"
	Warn Verdict = "warn"
	Fail Verdict = "fail"
	Skip Verdict = "skip"
)

// Check is one thing that `wherry ctl doctor` has looked at.
type Check struct {
	Name    string  `json:"name"` // "cgroup.delegation"
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`           // what is, with numbers
	Remedy  string  `json:"remedy,omitempty"` // the command or the setting that helps
}

// Diagnosis is all of them, in a fixed order.
type Diagnosis struct {
	Checks []Check `json:"checks"`
}

// Worst is the worst verdict.
func (d Diagnosis) Worst() Verdict {
	worst := OK
	for _, c := range d.Checks {
		switch {
		case c.Verdict == Fail:
			return Fail
		case c.Verdict == Warn:
			worst = Warn
		}
	}
	return worst
}

// DoctorRequest says how the host is to be looked at.
type DoctorRequest struct {
	Registries bool          // also ask the registries whether they let us in
	Limit      time.Duration // of one check; 0: 5 s, at most a minute
}

// Doctor has the daemon look at its host. GET /v1/doctor?registries=true&limit=5s.
func (c *Client) Doctor(ctx context.Context, r DoctorRequest) (d Diagnosis, err error) {
	query := url.Values{}
	if r.Registries {
		query.Set("registries", "true")
	}
	if r.Limit > 0 {
		query.Set("limit", r.Limit.String())
	}
	return d, c.call(ctx, http.MethodGet, "/doctor", query, nil, &d)
}
