package registry

import (
	"slices"
	"strings"
)

// challenge is how a host wants us to log in.
type challenge struct {
	basic          bool
	realm, service string // of a token service
}

// parseChallenges picks from WWW-Authenticate headers (RFC 9110, 11.6.1) what
// we can answer: Bearer before Basic.
func parseChallenges(headers []string) (best *challenge, scope string) {
	for _, h := range headers {
		for _, c := range splitChallenges(h) {
			switch {
			case strings.EqualFold(c.scheme, "bearer") && c.params["realm"] != "" && (best == nil || best.basic):
				best, scope = &challenge{realm: c.params["realm"], service: c.params["service"]}, c.params["scope"]
			case strings.EqualFold(c.scheme, "basic") && best == nil:
				best = &challenge{basic: true}
			}
		}
	}
	return best, scope
}

type rawChallenge struct {
	scheme string
	params map[string]string
}

// splitChallenges reads one header, in which commas stand between parameters
// and between challenges alike.
func splitChallenges(s string) []rawChallenge {
	var all []rawChallenge
	for _, item := range splitOutsideQuotes(s) {
		word, value, isParam := strings.Cut(item, "=")
		word = strings.TrimSpace(word)
		if scheme, first, ok := strings.Cut(word, " "); ok || !isParam {
			all = append(all, rawChallenge{scheme, map[string]string{}})
			word = strings.TrimSpace(first)
		}
		if isParam && word != "" && len(all) > 0 {
			all[len(all)-1].params[strings.ToLower(word)] = unquote(strings.TrimSpace(value))
		}
	}
	return slices.DeleteFunc(all, func(c rawChallenge) bool { return c.scheme == "" })
}

func splitOutsideQuotes(s string) []string {
	var items []string
	var cur strings.Builder
	quoted, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			items = append(items, strings.TrimSpace(cur.String()))
			cur.Reset()
			continue
		}
		cur.WriteRune(r)
	}
	return append(items, strings.TrimSpace(cur.String()))
}

func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	escaped := false
	for _, r := range s[1 : len(s)-1] {
		if r == '\\' && !escaped {
			escaped = true
			continue
		}
		escaped = false
		b.WriteRune(r)
	}
	return b.String()
}
