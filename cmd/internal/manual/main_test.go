package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/cmd/internal/daemon"
	"github.com/wherry-run/wherry/supervisor/unit"
)

var edition = book{version: "1.2.3-rc1", date: "2026-11-22"}

func TestEveryCommandHasAPage(t *testing.T) {
	pages := edition.pages()
	for _, name := range []string{"wherry.1", "wherry-daemon.1", "wherry-ctl.1", "wherry-ctl-apply.1", "wherry-ctl-image-gc.1", "wherry.yaml.5", "wherry-unit.5"} {
		if pages[name] == "" {
			t.Errorf("no page %s", name)
		}
	}
	if pages["wherry-keeper.1"] != "" {
		t.Error("a hidden command has a page")
	}
	apply := pages["wherry-ctl-apply.1"]
	for _, part := range []string{`.TH WHERRY\-CTL\-APPLY 1 "2026-11-22" "wherry 1.2.3\-rc1" "wherry"`, ".SH EXAMPLES", `\fB\-\-timeout\fR \fIduration\fR`, ".BR wherry\\-unit (5)"} {
		if !strings.Contains(apply, part) {
			t.Errorf("no %s in\n%s", part, apply)
		}
	}
}

func TestEveryKeyIsThere(t *testing.T) {
	pages := edition.pages()
	all, rules := daemon.Keys()
	for _, k := range append(all, rules...) {
		if !strings.Contains(pages["wherry.yaml.5"], bold(k.Name)) {
			t.Errorf("wherry.yaml(5) lacks %s", k.Name)
		}
	}
	for _, k := range unit.Keys() {
		if !k.Later && !strings.Contains(pages["wherry-unit.5"], bold(k.Name)) {
			t.Errorf("wherry-unit(5) lacks %s", k.Name)
		}
	}
}

// What a page refers to is a page.
func TestReferencesLead(t *testing.T) {
	pages := edition.pages()
	for name, text := range pages {
		for line := range strings.Lines(text) {
			rest, ok := strings.CutPrefix(line, ".BR ")
			if !ok {
				continue
			}
			title, section, _ := strings.Cut(strings.ReplaceAll(rest, `\-`, "-"), " (")
			if pages[title+"."+section[:1]] == "" {
				t.Errorf("%s refers to %s(%s), which is not there", name, title, section[:1])
			}
		}
	}
}

func TestNoLineIsARequestByAccident(t *testing.T) {
	p := &page{}
	p.header(edition, "x", "1", "Short")
	p.section("TEXT")
	p.text(".dot at the start\n\n'quote\n\n  a\\b -x")
	want := ".SH TEXT\n\\&.dot at the start\n.PP\n\\&'quote\n.PP\n.nf\n  a\\eb \\-x\n.fi\n"
	if !strings.HasSuffix(p.String(), want) {
		t.Errorf("got\n%s\nwant at its end\n%s", p.String(), want)
	}
}

func TestPagesAreCleanRoff(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("no mandoc")
	}
	dir := t.TempDir()
	if err := write(dir, edition); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(dir + "/man[15]/*")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d pages: %v", len(files), err)
	}
	if out, err := exec.Command(mandoc, append([]string{"-Tlint", "-Wwarning"}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The completions ask the program itself, so live names come from it.
func TestCompletions(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir, edition); err != nil {
		t.Fatal(err)
	}
	for name, part := range map[string]string{"wherry": "-F __start_wherry wherry", "_wherry": "#compdef wherry", "wherry.fish": "complete -c wherry"} {
		text, err := os.ReadFile(filepath.Join(dir, "completions", name))
		if err != nil || !strings.Contains(string(text), part) || !strings.Contains(string(text), "__complete") {
			t.Errorf("%s: %v; no %s in it", name, err, part)
		}
	}
}
