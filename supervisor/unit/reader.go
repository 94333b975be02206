package unit

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// reader collects what is wrong while a file is read, so that one look at it
// finds every mistake.
type reader struct {
	file  string
	o     Options
	errs  Errors
	warns []Warning
}

// fail notes an error at a node.
func (p *reader) fail(n *node, key string, err error) {
	e := &Error{File: p.file, Line: n.line, Column: n.column, Key: key, Message: err.Error()}
	if f, ok := err.(*fault); ok {
		e.Message, e.Hint = f.message, f.hint
	}
	p.errs = append(p.errs, e)
}

// bad notes what is wrong with the value of a key.
func (p *reader) bad(n *node, err error) {
	if n.broken {
		return
	}
	f, ok := err.(*fault)
	if !ok {
		f = &fault{message: err.Error()}
	}
	p.fail(n, n.key, &fault{message: n.key + ": " + f.message, hint: f.hint})
}

func (p *reader) badf(n *node, hint, format string, args ...any) {
	p.bad(n, faultf(hint, format, args...))
}

func (p *reader) warnf(n *node, format string, args ...any) {
	p.warns = append(p.warns, Warning{File: p.file, Line: n.line, Column: n.column, Key: n.key,
		Message: n.key + ": " + fmt.Sprintf(format, args...)})
}

// Key is one key of a unit file. The parser, its hints and the reference page
// are made of the same table.
type Key struct {
	Name    string `json:"name"`
	Type    string `json:"type"` // for people: "size", "list of ports"
	Default string `json:"default,omitempty"`
	Text    string `json:"text"`            // one sentence
	Later   bool   `json:"later,omitempty"` // known, but not supported yet
	Keys    []Key  `json:"keys,omitempty"`  // of a map
}

// field is a key and what reads its value into a T.
type field[T any] struct {
	Key
	set func(p *reader, n *node, to *T)
}

// table is all keys of one map.
type table[T any] struct {
	fields []field[T]
	// elsewhere says, for words of other systems, where to look here.
	elsewhere map[string]string
}

func (t table[T]) keys() []Key {
	out := make([]Key, len(t.fields))
	for i, f := range t.fields {
		out[i] = f.Key
	}
	return out
}

// names are the keys that work; a typo is never corrected to one that does not.
func (t table[T]) names() []string {
	var out []string
	for _, f := range t.fields {
		if !f.Later {
			out = append(out, f.Name)
		}
	}
	return out
}

// fill reads a map by its table.
func (t table[T]) fill(p *reader, n *node, to *T) {
	if n.shape != mapping {
		p.badf(n, "", "wants a map, not %s", n.kind())
		return
	}
	for _, pr := range n.pairs {
		t.one(p, n, pr, to)
	}
}

func (t table[T]) one(p *reader, n *node, pr pair, to *T) {
	name := pr.name.text
	if strings.HasPrefix(name, "x-") {
		return
	}
	for _, f := range t.fields {
		switch {
		case f.Name != name:
		case f.Later:
			p.fail(pr.name, join(n.key, name), notYet(join(n.key, name)))
			return
		case pr.value.shape == null:
			p.fail(pr.name, pr.value.key, faultf("give it one or leave the key out", "%s: has no value", pr.value.key))
			return
		default:
			f.set(p, pr.value, to)
			return
		}
	}
	hint := t.elsewhere[name]
	if hint == "" && len(p.errs) < mostErrors { // to compare words takes its time
		hint = didYouMean(name, t.names())
	}
	where := ""
	if n.key != "" {
		where = " in " + n.key
	}
	p.fail(pr.name, join(n.key, name), faultf(hint, "unknown key %q%s", name, where))
}

// text reads any scalar as it is written.
func (p *reader) text(n *node) (string, bool) {
	if n.shape != scalar || n.broken {
		p.badf(n, "", "wants text, not %s", n.kind())
		return "", false
	}
	if n.filled {
		return n.text, true
	}
	got, at, err := interpolate(n.text, func(string) (string, bool) { return "", false })
	if err != nil {
		p.bad(n.inside(at), err)
		return "", false
	}
	if strings.ContainsRune(got, 0) {
		p.badf(n, "", "holds a zero byte")
		return "", false
	}
	// What is nothing but one parameter has the parameter's type.
	if strings.HasPrefix(n.text, "${") && closing(n.text) == len(n.text) {
		n.quoted = false
	}
	n.text, n.filled = got, true
	return got, true
}

// inside is the place of a byte of the text, if that can be told.
func (n *node) inside(at int) *node {
	out := *n
	tail := n.text[at:]
	if i := strings.Index(n.raw, tail); i >= 0 && tail != "" && !strings.Contains(n.raw, "\n") {
		out.column += utf8.RuneCountInString(n.raw[:i])
	}
	return &out
}

// word reads text that YAML takes for text: `name: 5` is a mistake.
func (p *reader) word(n *node) (string, bool) {
	if n.shape == scalar && (n.number || n.kind() == "a boolean") {
		p.badf(n, fmt.Sprintf("write %q with quotes", n.text), "wants text, not %s", n.kind())
		return "", false
	}
	got, ok := p.text(n)
	if ok && got == "" {
		p.badf(n, "give it a value or leave the key out", "is empty")
		return "", false
	}
	return got, ok
}

// oneOf reads one of the words given.
func (p *reader) oneOf(n *node, words ...string) (string, bool) {
	got, ok := p.word(n)
	if !ok {
		return "", false
	}
	for _, w := range words {
		if w == got {
			return got, true
		}
	}
	hint := didYouMean(got, words)
	if hint == "" {
		hint = "it is one of " + strings.Join(words, ", ")
	}
	p.badf(n, hint, "%q is unknown", got)
	return "", false
}

func (p *reader) integer(n *node, least, most int64) (int64, bool) {
	text, ok := p.text(n)
	if !ok {
		return 0, false
	}
	got, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		p.badf(n, "", "wants a whole number, not %q", text)
		return 0, false
	}
	if got < least || got > most {
		p.badf(n, fmt.Sprintf("it goes from %d to %d", least, most), "%d is out of range", got)
		return 0, false
	}
	return got, true
}

// float reads a number between two bounds, both included.
func (p *reader) float(n *node, least, most float64) (float64, bool) {
	text, ok := p.text(n)
	if !ok {
		return 0, false
	}
	got, err := parseFloat(text, least, most)
	if err != nil {
		p.bad(n, err)
		return 0, false
	}
	return got, true
}

func parseFloat(text string, least, most float64) (float64, error) {
	got, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, faultf("", "wants a number, not %q", text)
	}
	if !(got >= least && got <= most) { // NaN too
		return 0, faultf(fmt.Sprintf("it goes from %g to %g", least, most), "%s is out of range", text)
	}
	return got, nil
}

func (p *reader) boolean(n *node) (value, ok bool) {
	text, ok := p.text(n)
	if !ok {
		return false, false
	}
	switch {
	case text == "true" && !n.quoted:
		return true, true
	case text == "false" && !n.quoted:
		return false, true
	}
	hint := "write true or false"
	switch strings.ToLower(text) {
	case "yes", "on", "y", "true", "1":
		hint = "write true"
	case "no", "off", "n", "false", "0":
		hint = "write false"
	}
	if n.quoted {
		hint += " without quotes"
	}
	p.badf(n, hint, "%q is not a boolean", text)
	return false, false
}

func (p *reader) duration(n *node) (Duration, bool) { return parsed(p, n, ParseDuration) }

// parsed reads a scalar with a parser of texts.
func parsed[T any](p *reader, n *node, parse func(string) (T, error)) (T, bool) {
	var none T
	text, ok := p.text(n)
	if !ok {
		return none, false
	}
	got, err := parse(text)
	if err != nil {
		p.bad(n, err)
		return none, false
	}
	return got, true
}

// strings reads a list of texts.
func (p *reader) strings(n *node) ([]string, bool) {
	if n.shape != list {
		p.badf(n, "write [...]", "wants a list, not %s", n.kind())
		return nil, false
	}
	out := make([]string, 0, len(n.items))
	good := true
	for _, item := range n.items {
		text, ok := p.text(item)
		out, good = append(out, text), good && ok
	}
	return out, good
}
