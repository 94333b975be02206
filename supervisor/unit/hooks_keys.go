package unit

import "time"

// defaultHook is how long a post_start command may take if nothing else is said.
const defaultHook = time.Minute

// PostStartLimit is how long the command may take after a start.
func (h Hook) PostStartLimit() time.Duration {
	if h.Timeout > 0 {
		return time.Duration(h.Timeout)
	}
	return defaultHook
}

// containerHooks are the commands that are run in a container at its start and its stop.
var containerHooks = []field[Container]{
	withKeys(known("post_start", "list of maps", "", "Commands that are run in it after its start, one after the other. It is up when they have ended; one that fails fails the start.",
		func(p *reader, n *node, c *Container) { c.PostStart = p.hooks(n) }), hookTable.keys()),
	withKeys(known("pre_stop", "list of maps", "", "Commands that are run in it before it is asked to stop, within stop_grace_period. One that fails stops nothing but itself.",
		func(p *reader, n *node, c *Container) { c.PreStop = p.hooks(n) }), hookTable.keys()),
}

var hookTable = table[Hook]{
	fields: []field[Hook]{
		known("command", "list or text", "", "The program and its arguments. It must be there.",
			func(p *reader, n *node, h *Hook) { h.Command = p.hookCommand(n) }),
		known("user", "user[:group]", "the container's", "Who runs it.", func(p *reader, n *node, h *Hook) { h.User, _ = parsed(p, n, parseUser) }),
		known("working_dir", "path", "the container's", "The folder it starts in.", func(p *reader, n *node, h *Hook) { h.WorkingDir, _ = parsed(p, n, parseTarget) }),
		known("environment", "map or list", "", "Environment variables, over the container's.", func(p *reader, n *node, h *Hook) {
			h.Environment = map[string]string{}
			p.assignments(n, h.Environment, passHint)
		}),
		known("privileged", "boolean", "false", "Whether it has all capabilities, whatever the container has.",
			func(p *reader, n *node, h *Hook) { p.flag(n, &h.Privileged) }),
		known("timeout", "duration", "1m of post_start; what is left of stop_grace_period", "How long it may take before it is killed and counts as failed.",
			func(p *reader, n *node, h *Hook) {
				d, ok := p.duration(n)
				if ok && d <= 0 {
					p.badf(n, "leave the key out", "no time at all")
				} else if ok {
					h.Timeout = d
				}
			}),
	},
	elsewhere: map[string]string{"exec": "write command", "run_on": "a hook runs in the container", "httpGet": "write a command", "sleep": "write command: [sleep, \"5\"]"},
}

// hooks reads Compose's form: a list of maps.
func (p *reader) hooks(n *node) []Hook {
	if n.shape != list {
		p.badf(n, "write [{command: [...]}]", "wants a list, not %s", n.kind())
		return nil
	}
	var hooks []Hook
	for _, item := range n.items {
		before := len(p.errs)
		var h Hook
		hookTable.fill(p, item, &h)
		switch {
		case len(p.errs) > before:
		case len(h.Command) == 0:
			p.badf(item, "write {command: [...]}", "has no command")
		default:
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// hookCommand is as command is, but of a hook there is no image's one.
func (p *reader) hookCommand(n *node) []string {
	words, ok := []string(nil), false
	if n.shape == scalar {
		words, ok = parsed(p, n, splitWords)
	} else {
		words, ok = p.strings(n)
	}
	if ok && (len(words) == 0 || words[0] == "") {
		p.badf(n, "", "is empty")
	}
	return words
}

// The modes of logging.
const (
	LogBlocking    = "blocking"
	LogNonBlocking = "non-blocking"
)

// loggingModes are the keys that say what happens when the disk is slow.
var loggingModes = []field[Logging]{
	known("mode", "word", LogBlocking, "What a disk that is too slow for the output does: blocking lets the container wait; non-blocking drops lines, counts them, and marks in the log how many.",
		func(p *reader, n *node, l *Logging) {
			if word, ok := p.oneOf(n, LogBlocking, LogNonBlocking); ok && word == LogNonBlocking {
				l.Mode = word
			}
		}),
	known("max_buffer_size", "size", "1MiB, with mode non-blocking", "How much output is kept for a slow disk before lines are dropped.",
		func(p *reader, n *node, l *Logging) { l.MaxBufferSize, _ = parsed(p, n, parseLogBuffer) }),
}

const (
	leastLogBuffer = 64 << 10 // what is read at once
	mostLogBuffer  = 1 << 30
)

func parseLogBuffer(text string) (int64, error) {
	size, err := ParseSize(text)
	switch {
	case err != nil:
		return 0, err
	case size < leastLogBuffer:
		return 0, faultf("the least is "+Size(leastLogBuffer).String(), "%s is too little", text)
	case size > mostLogBuffer:
		return 0, faultf("the most is "+Size(mostLogBuffer).String(), "%s is too much", text)
	}
	return size, nil
}

func parseLogMode(text string) (string, error) {
	switch text {
	case LogBlocking:
		return "", nil
	case LogNonBlocking:
		return text, nil
	}
	return "", faultf("it is blocking or non-blocking", "%q is unknown", text)
}
