package term

import (
	"strings"
	"unicode"
)

// Style is how a word is coloured on a terminal.
type Style string

// The styles: what is well, under way, wrong, of less interest, a heading.
const (
	Plain Style = ""
	Good  Style = "32"
	Busy  Style = "33"
	Bad   Style = "31"
	Faint Style = "2"
	Bold  Style = "1"
)

// Paint colours text if the stream has colours.
func (s Stream) Paint(style Style, text string) string {
	if !s.Color || style == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}

// Clean replaces what could move the cursor or break a line: text from a
// container or a registry must not be able to forge output.
func Clean(s string) string {
	bad := func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case bad(r):
			return '\uFFFD'
		}
		return r
	}, s)
}
