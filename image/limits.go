package image

import "time"

// RateLimit is what a registry last said about how many pulls are left.
type RateLimit struct {
	Registry  string        `json:"registry"`
	Limit     int           `json:"limit"`     // -1: it did not say
	Remaining int           `json:"remaining"` // -1: it did not say
	Window    time.Duration `json:"window"`    // nanoseconds
	At        time.Time     `json:"at"`

	// Until is set while the registry wants no requests (429 with Retry-After).
	Until time.Time `json:"until,omitzero"`
}

// RateLimits returns what the registries that were spoken to have said.
func (s *Store) RateLimits() []RateLimit {
	var all []RateLimit
	for _, l := range s.registries.Load().client.Limits() {
		all = append(all, RateLimit(l))
	}
	return all
}
