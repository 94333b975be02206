package unit

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
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
