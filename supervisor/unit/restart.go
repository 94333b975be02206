package unit

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// parseRestart reads Docker's short form over the defaults given.
func parseRestart(text string, r RestartPolicy) (RestartPolicy, error) {
	word, count, counted := strings.Cut(text, ":")
	switch word {
	case "no", "false": // an unquoted no is a boolean to older tools
		r.Condition = Never
	case "always", "unless-stopped":
		r.Condition = Any
	case "on-failure":
		r.Condition = OnFailure
		if counted {
			n, err := strconv.Atoi(count)
			if err != nil || n < 1 || n > mostAttempts {
				return r, faultf("write it like on-failure:5", "%q is not a number of attempts", count)
			}
			r.MaxAttempts = n
		}
		return r, nil
	default:
		known := []string{"always", "unless-stopped", "on-failure", "no"}
		hint := cmp.Or(didYouMean(word, known), "it is one of "+strings.Join(known, ", "))
		switch strings.ToLower(word) {
		case "true", "yes", "any", "on":
			hint = `write "always"`
		case "never", "none", "off":
			hint = `write "no"`
		}
		return r, faultf(hint, "%q is unknown", text)
	}
	if counted {
		return r, faultf("only on-failure takes one", "%q has a number of attempts", text)
	}
	return r, nil
}

func (p *reader) setRestart(n *node, d *draft) {
	d.restart = n
	if n.shape == mapping {
		p.badf(n, "write restart_policy", "wants a word, not a map")
		return
	}
	if got, ok := parsed(p, n, func(text string) (RestartPolicy, error) { return parseRestart(text, d.unit.Restart) }); ok {
		d.unit.Restart = got
	}
}

const mostAttempts = 1 << 20

// restartTable is the long form.
var restartTable = table[RestartPolicy]{
	fields: []field[RestartPolicy]{
		known("condition", "word", "any", "When it is restarted: any, on-failure or none.", func(p *reader, n *node, r *RestartPolicy) {
			word, _ := p.oneOf(n, string(Any), string(OnFailure), string(Never))
			r.Condition = Condition(word)
		}),
		known("delay", "duration", "100ms", "The first wait.", func(p *reader, n *node, r *RestartPolicy) {
			p.period(n, &r.Delay)
		}),
		known("multiplier", "number", "2", "Each failure in a row makes the wait this much longer.", func(p *reader, n *node, r *RestartPolicy) {
			r.Multiplier, _ = p.float(n, 1, 100)
		}),
		known("max_delay", "duration", "1m", "The longest wait.", func(p *reader, n *node, r *RestartPolicy) {
			p.period(n, &r.MaxDelay)
		}),
		known("jitter", "number", "0.1", "Share of the wait that is added at random, 0 to 1.", func(p *reader, n *node, r *RestartPolicy) {
			r.Jitter, _ = p.float(n, 0, 1)
		}),
		known("max_attempts", "number", "0, no limit", "Restarts within the interval before it is given up.", func(p *reader, n *node, r *RestartPolicy) {
			attempts, _ := p.integer(n, 0, mostAttempts)
			r.MaxAttempts = int(attempts)
		}),
		known("interval", "duration", "10m", "The window of max_attempts.", func(p *reader, n *node, r *RestartPolicy) {
			p.period(n, &r.Interval)
		}),
		known("reset_after", "duration", "1m", "A run this long counts as good: the wait is short again.", func(p *reader, n *node, r *RestartPolicy) {
			p.period(n, &r.ResetAfter)
		}),
		known("no_restart_exit_codes", "list of numbers", "", "Exit codes after which it is left as it is.", (*reader).setNoRestart),
	},
	elsewhere: map[string]string{"window": "write reset_after", "max_retries": "write max_attempts", "mode": "write condition",
		"attempts": "write max_attempts", "name": "write condition"},
}

// period reads a duration longer than none.
func (p *reader) period(n *node, to *Duration) {
	got, ok := p.duration(n)
	if ok && got < 1e6 {
		p.badf(n, "the least is 1ms", "%s is too short", n.text)
	}
	*to = got
}

func (p *reader) setNoRestart(n *node, r *RestartPolicy) {
	if n.shape != list {
		p.badf(n, "write [...]", "wants a list, not %s", n.kind())
		return
	}
	var codes []int
	for _, item := range n.items {
		if code, ok := p.integer(item, 0, 255); ok {
			codes = append(codes, int(code))
		}
	}
	slices.Sort(codes)
	r.NoRestartExitCodes = slices.Compact(codes)
}

func (p *reader) setRestartPolicy(n *node, d *draft) {
	d.policy = n
	before := len(p.errs)
	restartTable.fill(p, n, &d.unit.Restart)
	r := &d.unit.Restart
	if len(p.errs) > before || r.MaxDelay >= r.Delay {
		return
	}
	if given := n.get("max_delay"); given != nil {
		p.badf(given, "", "%s is shorter than delay: %s", r.MaxDelay, r.Delay)
		return
	}
	r.MaxDelay = r.Delay
}
