package unit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one mistake in a unit file.
type Error struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in characters
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`        // "unknown key \"comand\""
	Hint    string `json:"hint,omitempty"` // "did you mean \"command\"?"
}

// Error gives "web.yaml:12:3: message, hint".
func (e *Error) Error() string {
	text := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
	if e.Hint != "" {
		text += ", " + e.Hint
	}
	return text
}

// Errors are all mistakes found in a file, in the order of the text.
type Errors []*Error

// Error gives one mistake a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the single errors to errors.As.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// Warning is what works but is probably not meant.
type Warning struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}

// String gives "web.yaml:12:3: message".
func (w Warning) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", w.File, w.Line, w.Column, w.Message)
}

// fault is a mistake whose place the caller knows.
type fault struct{ message, hint string }

func (f *fault) Error() string {
	if f.hint == "" {
		return f.message
	}
	return f.message + ", " + f.hint
}

func faultf(hint, format string, args ...any) error {
	return &fault{message: fmt.Sprintf(format, args...), hint: hint}
}

// notYet is the answer to what design knows and this version does not do.
func notYet(what string) error { return &fault{message: what + ": not supported yet"} }

// most errors of one file that are worth reading.
const mostErrors = 50

// sorted puts errors in the order of the text and drops repetitions, which an
// alias brings about.
func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column)
	})
	e = slices.CompactFunc(e, func(a, b *Error) bool { return *a == *b })
	if len(e) > mostErrors {
		last := *e[mostErrors]
		last.Message, last.Hint, last.Key = fmt.Sprintf("and %d more errors", len(e)-mostErrors), "", ""
		e = append(e[:mostErrors:mostErrors], &last)
	}
	return e
}

// nearest is the known word most like the one given, if it is like any:
// at most a third of its letters differ.
func nearest(word string, known []string) string {
	best, least := "", len(word)/3+1
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least || d == least && best == "" && d <= 1 {
			best, least = k, d
		}
	}
	return best
}

// didYouMean is the hint for a word that is like a known one.
func didYouMean(word string, known []string) string {
	if near := nearest(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// distance counts the letters to insert, remove, replace or swap with a
// neighbour to make one word of the other.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
