package unit

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of what is handed to the YAML library, which recurses: Go cannot
// recover from a stack that is full.
const (
	mostBytes = 256 << 10
	mostDepth = 64
)

// shape is what a node is before anybody asks for a type.
type shape int

const (
	scalar shape = iota
	null
	list
	mapping
)

// node is a YAML value with aliases and merge keys resolved. A scalar keeps the
// text as written: which type it has is decided by who reads it, so that
// `010`, `yes` and `1e3` are never changed behind anybody's back.
type node struct {
	shape        shape
	line, column int
	key          string // the path to it, "resources.limits.memory"
	text         string
	raw          string // as in the file, quotes included
	quoted       bool
	number       bool // a plain scalar that YAML takes for a number
	filled       bool // text has been interpolated
	broken       bool // an error has been noted: no more about it
	items        []*node
	pairs        []pair
}

type pair struct {
	name  *node
	value *node
}

// get finds a mapping's value; nil if there is none.
func (n *node) get(name string) *node {
	for _, p := range n.pairs {
		if p.name.text == name {
			return p.value
		}
	}
	return nil
}

// kind says for people what the node is.
func (n *node) kind() string {
	switch n.shape {
	case null:
		return "nothing"
	case list:
		return "a list"
	case mapping:
		return "a map"
	}
	switch {
	case n.number:
		return "a number"
	case !n.quoted && (n.text == "true" || n.text == "false"):
		return "a boolean"
	}
	return "text"
}

// readYAML gives the one document of a file, or nil and the reason in p.
func (p *reader) readYAML(data []byte) (root *node) {
	at := &node{line: 1, column: 1}
	if len(data) > mostBytes {
		p.fail(at, "", faultf("", "the file is larger than %s", Size(mostBytes)))
		return nil
	}
	if !utf8.Valid(data) {
		p.fail(badByte(data), "", faultf("", "the file is not UTF-8 text"))
		return nil
	}
	// The library is young and has panicked on odd input before; one bad file
	// must not take the daemon down.
	defer func() {
		if r := recover(); r != nil {
			p.fail(at, "", faultf("", "not YAML: the parser gave up on it"))
			root = nil
		}
	}()
	text := strings.TrimPrefix(string(data), "\ufeff")
	tokens := lexer.Tokenize(text)
	if deep := tooDeep(tokens); deep != nil {
		p.fail(deep, "", faultf("", "nested deeper than %d", mostDepth))
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		p.fail(syntax(err), "", syntaxFault(err, text))
		return nil
	}
	var docs []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			docs = append(docs, d.Body)
		}
	}
	if len(docs) == 0 {
		p.fail(at, "", faultf("a unit has at least an image", "the file is empty"))
		return nil
	}
	c := &converter{p: p, anchors: map[string]*node{}}
	root = c.node(docs[0], "")
	if len(docs) > 1 {
		p.fail(place(docs[1]), "", faultf("write one unit a file", "a second document"))
	}
	return root
}

// badByte is where UTF-8 ends.
func badByte(data []byte) *node {
	at := &node{line: 1, column: 1}
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size == 1 {
			break
		}
		at.column++
		if r == '\n' {
			at.line, at.column = at.line+1, 1
		}
		data = data[size:]
	}
	return at
}

// tooDeep is the token at which the file is nested too deeply; nil if nowhere.
func tooDeep(tokens token.Tokens) *node {
	flow, dashes, line, column := 0, 0, 0, 0
	for _, t := range tokens {
		if t.Position == nil {
			continue
		}
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		column = t.Position.Column
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType, token.MappingValueType:
			if flow == 0 { // there, they are no nesting
				dashes++
			}
		}
		// A block's depth shows in its indentation, several levels on one line
		// in the number of their marks.
		indent := t.Position.IndentNum
		if flow > mostDepth || flow == 0 && dashes > mostDepth || flow == 0 && indent > 8*mostDepth {
			return &node{line: line, column: column}
		}
	}
	return nil
}

// syntax is where the library saw an error.
func syntax(err error) *node {
	at := &node{line: 1, column: 1}
	var e yaml.Error
	if errors.As(err, &e) && e.GetToken() != nil && e.GetToken().Position != nil {
		at.line, at.column = e.GetToken().Position.Line, e.GetToken().Position.Column
	}
	at.clamp()
	return at
}

// syntaxFault is the library's message, with a hint for the usual cause.
func syntaxFault(err error, text string) error {
	message := err.Error()
	var e yaml.Error
	if errors.As(err, &e) {
		message = e.GetMessage()
	}
	at, hint := syntax(err), ""
	lines := strings.Split(text, "\n")
	if at.line <= len(lines) {
		switch line := lines[at.line-1]; {
		case strings.Contains(line, "${"):
			hint = `put quotes around "${...}" within { } and [ ]`
		case strings.HasPrefix(strings.TrimLeft(line, " "), "\t"):
			hint = "indent with blanks"
		}
	}
	return faultf(hint, "not YAML: %s", message)
}

// clamp makes a position one that an editor can go to.
func (n *node) clamp() { n.line, n.column = max(n.line, 1), max(n.column, 1) }

// place is where a library node begins.
func place(n ast.Node) *node {
	at := &node{line: 1, column: 1}
	switch v := n.(type) {
	case nil:
		return at
	case *ast.MappingNode:
		// The library gives a block map the place of its first colon.
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return place(v.Values[0])
		}
	case *ast.MappingValueNode:
		if v.Key != nil {
			return place(v.Key)
		}
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		at.line, at.column = t.Position.Line, t.Position.Column
	}
	at.clamp()
	return at
}

// converter turns the library's tree into ours.
type converter struct {
	p       *reader
	anchors map[string]*node
}

func (c *converter) node(n ast.Node, key string) *node {
	out := place(n)
	out.key = key
	switch v := n.(type) {
	case nil:
		out.shape = null
	case *ast.NullNode:
		out.shape = null
	case *ast.MappingNode:
		c.pairs(out, v.Values)
	case *ast.MappingValueNode:
		c.pairs(out, []*ast.MappingValueNode{v})
	case *ast.SequenceNode:
		out.shape = list
		for _, item := range v.Values {
			out.items = append(out.items, c.node(item, key))
		}
	case *ast.AnchorNode:
		// Set after its value is read, so that no anchor contains itself.
		out = c.node(v.Value, key)
		if v.Name != nil {
			c.anchors[v.Name.GetToken().Value] = out
		}
	case *ast.AliasNode:
		return c.alias(out, v)
	case *ast.TagNode:
		return c.tagged(out, v, key)
	case *ast.LiteralNode:
		out.quoted = true
		if v.Value != nil {
			out.text = v.Value.Value
		}
	default:
		c.scalar(out, n)
	}
	return out
}

func (c *converter) alias(out *node, v *ast.AliasNode) *node {
	name := ""
	if v.Value != nil {
		name = v.Value.GetToken().Value
	}
	known := c.anchors[name]
	if known == nil {
		c.p.fail(out, "", faultf("", "no anchor &%s before this place", name))
		out.broken = true
		return out
	}
	copied := *known
	copied.line, copied.column, copied.key = out.line, out.column, out.key
	return &copied
}

func (c *converter) tagged(out *node, v *ast.TagNode, key string) *node {
	tag := v.GetToken().Value
	value := c.node(v.Value, key)
	switch tag {
	case "!!str":
		value.quoted, value.number = true, false
	case "!!int", "!!float", "!!bool", "!!seq", "!!map", "!!null":
	default:
		c.p.fail(out, "", faultf("", "tag %s means nothing here", tag))
	}
	return value
}

func (c *converter) scalar(out *node, n ast.Node) {
	t := n.GetToken()
	if t == nil {
		out.shape = null
		return
	}
	out.text = t.Value
	out.raw = strings.TrimSpace(t.Origin)
	switch t.Type {
	case token.SingleQuoteType, token.DoubleQuoteType:
		out.quoted = true
	}
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.number = true
	}
}

// pairs reads a mapping: keys of its own first, then merged ones.
func (c *converter) pairs(out *node, values []*ast.MappingValueNode) {
	out.shape = mapping
	var merged []*node
	seen := map[string]*node{}
	for _, v := range values {
		name := c.name(v.Key)
		if _, ok := v.Key.(*ast.MergeKeyNode); ok {
			merged = append(merged, c.node(v.Value, out.key))
			continue
		}
		if first := seen[name.text]; first != nil {
			c.p.fail(name, join(out.key, name.text), faultf("", "key %q is given twice, first in line %d", name.text, first.line))
			continue
		}
		seen[name.text] = name
		out.pairs = append(out.pairs, pair{name: name, value: c.node(v.Value, join(out.key, name.text))})
	}
	for _, m := range merged {
		c.merge(out, m, seen)
	}
}

// merge adds what `<<` brings; what is there already wins.
func (c *converter) merge(out, from *node, seen map[string]*node) {
	switch from.shape {
	case list:
		for _, item := range from.items {
			c.merge(out, item, seen)
		}
	case mapping:
		for _, pr := range from.pairs {
			if seen[pr.name.text] == nil {
				seen[pr.name.text] = pr.name
				value := *pr.value
				value.key = join(out.key, pr.name.text)
				out.pairs = append(out.pairs, pair{name: pr.name, value: &value})
			}
		}
	default:
		c.p.fail(from, out.key, faultf("", "<< wants a map or a list of maps, not %s", from.kind()))
	}
}

// name reads a key, which may only be a word.
func (c *converter) name(k ast.MapKeyNode) *node {
	out := place(k)
	inner := ast.Node(k)
	if m, ok := k.(*ast.MappingKeyNode); ok {
		inner = m.Value
	}
	switch v := inner.(type) {
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode, *ast.AliasNode, *ast.AnchorNode, *ast.TagNode, nil:
		out.text = fmt.Sprintf("(%d:%d)", out.line, out.column)
		c.p.fail(out, "", faultf("", "a key must be a word"))
		return out
	case *ast.LiteralNode:
		if v.Value != nil {
			out.text = v.Value.Value
		}
		return out
	}
	if t := inner.GetToken(); t != nil {
		out.text = t.Value
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
