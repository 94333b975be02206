package term

import (
	"strings"
	"unicode/utf8"
)

// Cell is one field of a table.
type Cell struct {
	Text  string
	Style Style
}

// Table is rows under a header. On a terminal its widest columns are cut so
// that a row fits a line; in a pipe nothing is.
type Table struct {
	header []string
	rows   [][]Cell
}

// NewTable makes a table with these column heads; without, it has no header.
func NewTable(header ...string) *Table { return &Table{header: header} }

// Row adds a row of plain text.
func (t *Table) Row(cells ...string) {
	row := make([]Cell, len(cells))
	for i, c := range cells {
		row[i].Text = c
	}
	t.Cells(row...)
}

// Cells adds a row.
func (t *Table) Cells(row ...Cell) {
	for i := range row {
		row[i].Text = Clean(row[i].Text)
	}
	t.rows = append(t.rows, row)
}

// gap stands between two columns.
const gap = 2

// narrowest is what a column is cut down to at most.
const narrowest = 8

// Print writes the table.
func (t *Table) Print(s Stream) error {
	widths := fit(t.widths(), s.Width)
	var b strings.Builder
	if len(t.header) > 0 {
		head := make([]Cell, len(t.header))
		for i, h := range t.header {
			head[i] = Cell{h, Bold}
		}
		writeRow(&b, s, head, widths)
	}
	for _, row := range t.rows {
		writeRow(&b, s, row, widths)
	}
	_, err := s.Write([]byte(b.String()))
	return err
}

// widths are the columns' natural widths.
func (t *Table) widths() []int {
	var w []int
	note := func(i int, text string) {
		if i == len(w) {
			w = append(w, 0)
		}
		w[i] = max(w[i], utf8.RuneCountInString(text))
	}
	for i, h := range t.header {
		note(i, h)
	}
	for _, row := range t.rows {
		for i, c := range row {
			note(i, c.Text)
		}
	}
	return w
}

// fit takes from the widest column until a row fits; limit 0 is none.
func fit(w []int, limit int) []int {
	if limit == 0 || len(w) == 0 {
		return w
	}
	total := gap * (len(w) - 1)
	for _, n := range w {
		total += n
	}
	for ; total > limit; total-- {
		widest := 0
		for i, n := range w {
			if n > w[widest] {
				widest = i
			}
		}
		if w[widest] <= narrowest {
			break
		}
		w[widest]--
	}
	return w
}

func writeRow(b *strings.Builder, s Stream, row []Cell, widths []int) {
	last := len(row) - 1
	for last > 0 && row[last].Text == "" {
		last-- // no blanks at a line's end
	}
	for i, c := range row[:last+1] {
		text := cut(c.Text, widths[i])
		b.WriteString(s.Paint(c.Style, text))
		if i < last {
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+gap))
		}
	}
	b.WriteByte('\n')
}

// cut shortens text to n characters, the last of them an ellipsis.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:max(n-1, 0)]) + "…"
}
