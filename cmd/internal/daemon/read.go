package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
		message, hint := syntax.Message, ""
		if strings.Contains(message, "\t") {
			message, hint = strings.ReplaceAll(message, "\t", `\t`), "indent with blanks"
		}
		p.add(node{token: syntax.Token}, message, hint)
		return p.errors
	case err != nil:
		return fmt.Errorf("configuration %s: %w", file, err)
	case len(f.Docs) > 1 && f.Docs[1].Body != nil:
		p.add(node{token: f.Docs[1].Body.GetToken()}, "a second document", "one file is one configuration")
		return p.errors
	case len(f.Docs) == 0 || f.Docs[0].Body == nil:
		return nil
	}
	fill(p, node{value: f.Docs[0].Body, token: f.Docs[0].Body.GetToken()}, keys, c)
	p.together(c)
	c.Warnings = p.warnings
	if len(p.errors) > 0 {
		return p.errors
	}
	return nil
}

// problems gathers mistakes.
type problems struct {
	file   string
	errors unit.Errors
	// warnings are mistakes of the moment, see Config.Warnings.
	warnings unit.Errors
	gc       gcNodes
}

func (p *problems) add(n node, message, hint string) {
	p.errors = append(p.errors, p.mistake(n, message, hint))
}

func (p *problems) warn(n node, message, hint string) {
	p.warnings = append(p.warnings, p.mistake(n, message, hint))
}

func (p *problems) mistake(n node, message, hint string) *unit.Error {
	e := &unit.Error{File: p.file, Line: 1, Column: 1, Key: n.name, Message: message, Hint: hint}
	if n.token != nil && n.token.Position != nil {
		e.Line, e.Column = n.token.Position.Line, n.token.Position.Column
	}
	return e
}

// node is one value with its place.
type node struct {
	name  string // the whole path of keys, "network.bridge"
	key   string // its own key, "bridge"
	at    *token.Token
	value ast.Node
	token *token.Token
}

// place is the node at its key instead of its value.
func (n node) place() node {
	n.token = n.at
	return n
}

// key is one key of a map that fills a T.
type key[T any] struct {
	name    string
	missing string // the default, in words
	set     func(to *T, n node, p *problems)
	below   []line // the keys of a map below it
	later   bool   // known, but not built yet
}

// line is a key in the help.
type line struct{ name, missing string }

// below lists keys with the path that leads to them.
func below[T any](prefix string, keys []key[T]) []line {
	if prefix != "" {
		prefix += "."
	}
	var all []line
	for _, k := range keys {
		switch {
		case k.later:
		case k.below == nil:
			all = append(all, line{prefix + k.name, k.missing})
		default:
			for _, l := range k.below {
				all = append(all, line{prefix + l.name, l.missing})
			}
		}
	}
	return all
}

// into is a key whose value is a map with keys of its own.
func into[T, S any](name string, keys []key[S], to func(*T) *S) key[T] {
	return key[T]{name: name, below: below(name, keys), set: func(t *T, n node, p *problems) { fill(p, n, keys, to(t)) }}
}

// pairs are a map's entries; none with a complaint if it is no map.
func (n node) pairs(p *problems) []node {
	var entries []*ast.MappingValueNode
	switch v := n.value.(type) {
	case *ast.MappingNode:
		entries = v.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{v}
	case *ast.NullNode:
	default:
		p.add(n, "want a map of keys and values", "")
	}
	all := make([]node, 0, len(entries))
	for _, e := range entries {
		key := e.Key.GetToken()
		child := node{name: key.Value, key: key.Value, at: key, value: e.Value, token: e.Value.GetToken()}
		if n.name != "" {
			child.name = n.name + "." + key.Value
		}
		all = append(all, child)
	}
	return all
}

// items are a list's items; none with a complaint if it is no list.
func (n node) items(p *problems) []node {
	list, ok := n.value.(*ast.SequenceNode)
	if !ok {
		p.add(n, "want a list", "write [...]")
		return nil
	}
	all := make([]node, 0, len(list.Values))
	for i, v := range list.Values {
		all = append(all, node{name: fmt.Sprintf("%s[%d]", n.name, i), value: v, token: v.GetToken()})
	}
	return all
}

// isScalar tells a word from a map or a list.
func (n node) isScalar() bool {
	_, ok := n.value.(ast.ScalarNode)
	return ok && n.value.Type() != ast.NullType
}

func (n node) isMap() bool {
	switch n.value.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// fill reads a map by its keys.
func fill[T any](p *problems, n node, known []key[T], to *T) {
	for _, child := range n.pairs(p) {
		one(p, child, known, to)
	}
}

func one[T any](p *problems, n node, known []key[T], to *T) {
	var names []string
	for _, k := range known {
		if !k.later {
			names = append(names, k.name)
		}
		switch {
		case k.name != n.key:
			continue
		case k.later:
			p.add(n.place(), fmt.Sprintf("%s: not supported yet", n.key), "")
		default:
			k.set(to, n, p)
		}
		return
	}
	hint := ""
	if near := nearest(n.key, names); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	p.add(n.place(), fmt.Sprintf("unknown key %q", n.key), hint)
}

// scalar is the text of a plain or quoted value.
func (n node) scalar(p *problems, want string) (string, bool) {
	if s, ok := n.value.(ast.ScalarNode); ok && n.value.Type() != ast.NullType {
		return s.GetToken().Value, true
	}
	hint := ""
	if t := n.value.Type(); t == ast.MappingType || t == ast.MappingValueType {
		hint = "a text with a colon in it needs quotes inside of {}"
	}
	p.add(n, "want "+want, hint)
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

// path is text that must be an absolute path: the daemon's working folder is
// nobody's concern.
func (n node) path(p *problems, to *string) bool {
	var s string
	if !n.text(p, &s) {
		return false
	}
	if !filepath.IsAbs(s) {
		p.add(n, fmt.Sprintf("%q is not an absolute path", s), "")
		return false
	}
	*to = filepath.Clean(s)
	return true
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
