package unit

import (
	"cmp"
	"slices"
	"strconv"
)

func parseLogSize(text string) (int64, error) {
	size, err := ParseSize(text)
	if err == nil && size < 1<<10 {
		err = faultf("the least is 1KiB", "%s is too little", text)
	}
	return size, err
}

func parseLogFiles(text string) (int, error) {
	files, err := strconv.Atoi(text)
	if err != nil || files < 1 || files > 1000 {
		return 0, faultf("it goes from 1 to 1000", "%q is not a number of files", text)
	}
	return files, nil
}

func (p *reader) setKind(n *node, d *draft) {
	switch kind, ok := p.oneOf(n, string(Service), "job", "cron"); {
	case !ok:
	case kind != string(Service):
		p.bad(n, notYet(kind))
	default:
		d.unit.Kind = Service
	}
}

func (p *reader) setName(n *node, d *draft) {
	d.name = n
	name, ok := p.word(n)
	if !ok {
		return
	}
	if err := CheckName(name); err != nil {
		p.bad(n, err)
	}
	d.unit.Name = name
}

func (p *reader) setImage(n *node, d *draft) {
	d.image = n
	image, ok := p.word(n)
	if !ok {
		return
	}
	if err := checkImage(image); err != nil {
		p.bad(n, err)
	}
	d.app.Image = image
}

func (p *reader) setPull(n *node, d *draft) { d.app.PullPolicy, _ = parsed(p, n, parsePull) }

func parsePull(text string) (string, error) {
	known := []string{"missing", "always", "never", "newer"}
	switch {
	case slices.Contains(known, text):
		return text, nil
	case text == "if_not_present" || text == "IfNotPresent":
		return "", faultf("write missing", "%q is unknown", text)
	}
	return "", faultf(cmp.Or(didYouMean(text, known), "it is missing, always, never or newer"), "%q is unknown", text)
}

// command reads a list, or text that is split as a shell does.
func (p *reader) command(n *node) []string {
	var words []string
	var ok bool
	if n.shape == scalar {
		words, ok = parsed(p, n, splitWords)
	} else {
		words, ok = p.strings(n)
	}
	if ok && len(words) == 0 {
		p.badf(n, "leave the key out to use the image's", "is empty, which is not supported yet")
	}
	return words
}

func (p *reader) setWorkingDir(n *node, d *draft) { d.app.WorkingDir, _ = parsed(p, n, parseTarget) }

func (p *reader) setUser(n *node, d *draft) { d.app.User, _ = parsed(p, n, parseUser) }

func parseUser(text string) (string, error) {
	if !isUser(text) {
		return "", faultf("write it like 1000, www or 1000:1000", "%q is not a user", text)
	}
	return text, nil
}

const mostReplicas = 1000

func (p *reader) setReplicas(n *node, d *draft) {
	count, _ := p.integer(n, 0, mostReplicas)
	d.unit.Replicas = int(count)
}

func (p *reader) setNetwork(n *node, d *draft) { d.unit.Network, _ = parsed(p, n, parseNetwork) }

func parseNetwork(name string) (string, error) {
	switch name {
	case "bridge", "host", "none":
		return name, nil
	}
	known := []string{"bridge", "host", "none"}
	return "", faultf(cmp.Or(didYouMean(name, known), "it is bridge, host or none"), "%q: networks by name are not supported yet", name)
}

func (p *reader) setStopSignal(n *node, d *draft) { d.app.StopSignal, _ = parsed(p, n, ParseSignal) }

func (p *reader) setGrace(n *node, d *draft) {
	if grace, ok := p.duration(n); ok {
		d.app.StopGracePeriod = grace
	}
}

func (p *reader) flag(n *node, to *bool) {
	if value, ok := p.boolean(n); ok {
		*to = value
	}
}

// capabilities reads a list of names in any order; the order has no meaning.
func (p *reader) capabilities(n *node) []string {
	if n.shape != list {
		p.badf(n, "write [...]", "wants a list, not %s", n.kind())
		return nil
	}
	var out []string
	for _, item := range n.items {
		if name, ok := parsed(p, item, ParseCapability); ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (p *reader) setLabels(n *node, d *draft) {
	labels := map[string]string{}
	p.assignments(n, labels, labelHint)
	if len(labels) > 0 {
		d.unit.Labels = labels
	}
}
