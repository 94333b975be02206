package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// readConfig reads a file over the defaults in c. All its mistakes come
// together, as unit.Errors.
func readConfig(file string, c *Config) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return parseConfig(file, b, c)
}

// parseConfig is readConfig of text.
func parseConfig(file string, text []byte, c *Config) (err error) {
	p := &problems{file: file}
	// The library is young: an odd file must not end a daemon that reloads.
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("configuration %s: not YAML: the parser gave up on it", file)
		}
	}()
	f, err := parser.ParseBytes(text, 0)
	var syntax *yaml.SyntaxError
	switch {
	case errors.As(err, &syntax):
		p.add(node{token: syntax.Token}, syntax.Message, "")
		return p.errors
	case err != nil:
		return fmt.Errorf("configuration %s: %w", file, err)
	case len(f.Docs) > 1 && f.Docs[1].Body != nil:
		p.add(node{token: f.Docs[1].Body.GetToken()}, "a second document", "one file is one configuration")
		return p.errors
	case len(f.Docs) == 0 || f.Docs[0].Body == nil:
		return nil
	}
	p.walk(c, node{value: f.Docs[0].Body, token: f.Docs[0].Body.GetToken()}, key{keys: keys})
	if len(p.errors) > 0 {
		return p.errors
	}
	return nil
}

// problems gathers mistakes.
type problems struct {
	file   string
	errors unit.Errors
}

func (p *problems) add(n node, message, hint string) {
	e := &unit.Error{File: p.file, Line: 1, Column: 1, Key: n.name, Message: message, Hint: hint}
	if n.token != nil && n.token.Position != nil {
		e.Line, e.Column = n.token.Position.Line, n.token.Position.Column
	}
	p.errors = append(p.errors, e)
}

// node is one value with its place.
type node struct {
	name   string // the whole path of keys, "network.bridge"
	key    string // its own key, "bridge"
	parent string // the key above it, "network"
	value  ast.Node
	token  *token.Token
}

// walk reads a map whose keys are those of k.
func (p *problems) walk(c *Config, n node, k key) {
	var entries []*ast.MappingValueNode
	switch v := n.value.(type) {
	case *ast.MappingNode:
		entries = v.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{v}
	case *ast.NullNode:
		return
	default:
		p.add(n, "want a map of keys and values", "")
		return
	}
	for _, e := range entries {
		name := e.Key.GetToken().Value
		child := node{name: name, parent: n.key, key: name, value: e.Value, token: e.Value.GetToken()}
		if n.name != "" {
			child.name = n.name + "." + name
		}
		if k.anyKey {
			p.walk(c, child, k.keys[0])
			continue
		}
		at := child
		at.token = e.Key.GetToken()
		p.entry(c, child, at, name, k.keys)
	}
}

// entry reads one key with its value; at is the key's place.
func (p *problems) entry(c *Config, n, at node, name string, known []key) {
	names := make([]string, 0, len(known))
	for _, k := range known {
		names = append(names, k.name)
		switch {
		case k.name != name:
			continue
		case k.later:
			p.add(at, fmt.Sprintf("%s: not supported yet", name), "")
		case k.keys != nil:
			p.walk(c, n, k)
		default:
			k.set(c, n, p)
		}
		return
	}
	hint := ""
	if near := nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	p.add(at, fmt.Sprintf("unknown key %q", name), hint)
}

// scalar is the text of a plain or quoted value.
func (n node) scalar(p *problems, want string) (string, bool) {
	if s, ok := n.value.(ast.ScalarNode); ok && n.value.Type() != ast.NullType {
		return s.GetToken().Value, true
	}
	p.add(n, "want "+want, "")
	return "", false
}

func (n node) text(p *problems, to *string) bool {
	s, ok := n.scalar(p, "text")
	if ok && s == "" {
		p.add(n, "want text, not nothing", "leave the key out for its default")
		return false
	}
	if ok {
		*to = s
	}
	return ok
}

func (n node) boolean(p *problems, to *bool) bool {
	s, ok := n.scalar(p, "true or false")
	switch {
	case !ok:
	case s == "true" || s == "false":
		*to = s == "true"
		return true
	default:
		hint := map[string]string{"yes": "true", "on": "true", "no": "false", "off": "false"}[strings.ToLower(s)]
		if hint != "" {
			hint = "write " + hint
		}
		p.add(n, fmt.Sprintf("want true or false, not %q", s), hint)
	}
	return false
}

func (n node) size(p *problems, to *int64) {
	s, ok := n.scalar(p, "a size such as 10MiB")
	if !ok {
		return
	}
	v, err := unit.ParseSize(s)
	if err != nil {
		p.add(n, err.Error(), "")
		return
	}
	*to = v
}

func (n node) count(p *problems, to *int) {
	s, ok := n.scalar(p, "a number")
	if !ok {
		return
	}
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 {
		p.add(n, fmt.Sprintf("want a number from 1, not %q", s), "")
		return
	}
	*to = v
}

// nearest is the known word that differs in at most a third of its letters.
func nearest(word string, known []string) string {
	best, least := "", len(word)/3+1
	for _, k := range known {
		if d := distance(word, k); d <= least && (best == "" || d < least) {
			best, least = k, d
		}
	}
	return best
}

// distance counts the letters to insert, remove or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
