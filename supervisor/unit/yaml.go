package unit

import (
	"errors"
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
