package main

import (
	"fmt"
	"strings"
)

// page is one manual page in the making, in the man(7) language.
type page struct{ b strings.Builder }

// header begins a page. title is its name without the section.
func (p *page) header(b book, title, section, short string) {
	fmt.Fprintf(&p.b, ".TH %s %s \"%s\" \"wherry %s\" \"wherry\"\n", escape(strings.ToUpper(title)), section, b.date, escape(b.version))
	p.section("NAME")
	fmt.Fprintf(&p.b, "%s \\- %s\n", escape(title), escape(lower(short)))
}

func (p *page) section(title string) { fmt.Fprintf(&p.b, ".SH %s\n", title) }

func (p *page) subsection(title string) { fmt.Fprintf(&p.b, ".SS %s\n", escape(title)) }

// text writes paragraphs, which blank lines part. One with an indented line is
// set as it stands.
func (p *page) text(s string) {
	for block := range strings.SplitSeq(strings.Trim(s, "\n"), "\n\n") {
		if block == "" {
			continue
		}
		if strings.HasPrefix(block, " ") || strings.Contains(block, "\n ") {
			p.example(block)
			continue
		}
		p.paragraph()
		p.line(strings.ReplaceAll(block, "\n", " "))
	}
}

// example is text whose lines and blanks stay.
func (p *page) example(s string) {
	p.paragraph()
	p.b.WriteString(".nf\n")
	for line := range strings.SplitSeq(strings.Trim(s, "\n"), "\n") {
		p.line(line)
	}
	p.b.WriteString(".fi\n")
}

// paragraph begins one, unless a heading has just done so.
func (p *page) paragraph() {
	text := strings.TrimSuffix(p.b.String(), "\n")
	last := text[strings.LastIndexByte(text, '\n')+1:]
	if !strings.HasPrefix(last, ".SH") && !strings.HasPrefix(last, ".SS") {
		p.b.WriteString(".PP\n")
	}
}

// item is a term, in roff already, and what is said about it.
func (p *page) item(term, text string) {
	fmt.Fprintf(&p.b, ".TP\n%s\n", term)
	if text == "" {
		text = "-"
	}
	p.line(text)
}

func (p *page) line(s string) {
	// A line that begins with a dot or an apostrophe would be a request.
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		p.b.WriteString(`\&`)
	}
	p.b.WriteString(escape(s) + "\n")
}

// seeAlso lists other pages, as NAME(SECTION).
func (p *page) seeAlso(pages []string) {
	if len(pages) == 0 {
		return
	}
	p.section("SEE ALSO")
	for i, name := range pages {
		title, section, _ := strings.Cut(strings.TrimSuffix(name, ")"), "(")
		comma := ","
		if i == len(pages)-1 {
			comma = ""
		}
		fmt.Fprintf(&p.b, ".BR %s (%s)%s\n", escape(title), section, comma)
	}
}

func (p *page) String() string { return p.b.String() }

func bold(s string) string   { return `\fB` + escape(s) + `\fR` }
func italic(s string) string { return `\fI` + escape(s) + `\fR` }

// escape guards what roff would read as its own. A plain hyphen is typeset as a
// short dash in UTF-8, and then cannot be copied into a shell.
var escape = strings.NewReplacer(`\`, `\e`, `-`, `\-`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`).Replace

// lower is a sentence as whatis(1) lists it, unless its first word is a name.
func lower(s string) string {
	if len(s) < 2 || s[1] < 'a' || s[1] > 'z' {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
