package term

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func stream(width int, color bool) (Stream, *bytes.Buffer) {
	var b bytes.Buffer
	return Stream{Writer: &b, Width: width, TTY: width > 0, Color: color}, &b
}

func TestTableInAPipeIsWhole(t *testing.T) {
	s, b := stream(0, false)
	table := NewTable("NAME", "STATE", "NOTE")
	long := strings.Repeat("x", 300)
	table.Row("web", "running", long)
	table.Cells(Cell{Text: "database"}, Cell{Text: "failed", Style: Bad}, Cell{})
	if err := table.Print(s); err != nil {
		t.Fatal(err)
	}
	want := "NAME      STATE    NOTE\nweb       running  " + long + "\ndatabase  failed\n"
	if b.String() != want {
		t.Errorf("%q", b.String())
	}
}

func TestTableFitsATerminal(t *testing.T) {
	for _, width := range []int{40, 60, 79, 80, 200} {
		s, b := stream(width, false)
		table := NewTable("NAME", "IMAGE", "NOTE")
		table.Row("web", strings.Repeat("i", 90), strings.Repeat("ü", 50))
		table.Row("a-unit-with-a-long-name", "short", "")
		if err := table.Print(s); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width {
				t.Errorf("width %d: a line of %d: %q", width, n, line)
			}
		}
	}
}

func TestColourOnlyWhereItIsWanted(t *testing.T) {
	s, b := stream(80, true)
	table := NewTable()
	table.Cells(Cell{Text: "failed", Style: Bad}, Cell{Text: "x"})
	_ = table.Print(s)
	if b.String() != "\x1b[31mfailed\x1b[0m  x\n" {
		t.Errorf("%q", b.String())
	}
	if s, _ := stream(80, false); s.Paint(Bad, "failed") != "failed" {
		t.Error("coloured without colours")
	}
}

func TestOpenOfAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := Open(w, func(string) string { return "200" })
	if s.TTY || s.Color || s.Width != 0 || s.People() {
		t.Errorf("a pipe is taken for a terminal: %+v", s)
	}
}

func TestForeignTextCannotMoveTheCursor(t *testing.T) {
	for in, want := range map[string]string{
		"plain":       "plain",
		"a\x1b[2Jb":   "a\uFFFD[2Jb",
		"two\nlines":  "two lines",
		"\u202eevil":  "\uFFFDevil",
		"tab\there\r": "tab here\uFFFD",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestFormat(t *testing.T) {
	type item struct {
		Name string `json:"name"`
		Tags []string
	}
	items := []item{{"a", []string{"x", "y"}}, {"bcd", nil}}
	for format, want := range map[string]string{
		"{{.Name}}":                      "a\nbcd\n",
		`{{.Name}}\t{{join .Tags ","}}`:  "a\tx,y\nbcd\t\n",
		`table {{.Name}}\t{{len .Tags}}`: "a    2\nbcd  0\n",
		"{{json .Tags}} {{upper .Name}}": "[\"x\",\"y\"] A\nnull BCD\n",
		"json":                           "[\n  {\n    \"name\": \"a\",\n    \"Tags\": [\n      \"x\",\n      \"y\"\n    ]\n  },\n  {\n    \"name\": \"bcd\",\n    \"Tags\": null\n  }\n]\n",
	} {
		f, err := ParseFormat(format)
		if err != nil {
			t.Fatal(err)
		}
		s, b := stream(0, false)
		if err := PrintEach(s, f, items); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v, want %q", format, b.String(), err, want)
		}
	}
	for _, bad := range []string{"jsn", "{{", "table x"} {
		if _, err := ParseFormat(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	f, _ := ParseFormat("{{.Nothing}}")
	s, _ := stream(0, false)
	var failure *Failure
	if err := PrintEach(s, f, items); !errors.As(err, &failure) || failure.Code != ExitUsage {
		t.Errorf("an unknown field: %v", err)
	}
}

func TestReport(t *testing.T) {
	s, b := stream(0, false)
	code := Report(s, fmt.Errorf("cannot start web: %w", &Failure{Code: 3, Err: errors.New("no"), Hint: "try"}))
	if code != 3 || b.String() != "error: cannot start web: no\nhint: try\n" {
		t.Errorf("%d %q", code, b.String())
	}
	b.Reset()
	if code := Report(s, Code(137)); code != 137 || b.Len() > 0 {
		t.Errorf("%d %q", code, b.String())
	}
	if Report(s, nil) != 0 || Report(s, errors.New("x")) != ExitFailed || Code(0) != nil {
		t.Error("codes of nil and of plain errors")
	}
}

func TestConfirm(t *testing.T) {
	for in, want := range map[string]bool{"y\n": true, "Yes\n": true, "yes": true, "n\n": false, "\n": false, "": false, "yess\n": false} {
		s, b := stream(80, false)
		got, err := Confirm(strings.NewReader(in), s, "Remove web?")
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
		if !strings.HasPrefix(b.String(), "Remove web? [y/N] ") {
			t.Errorf("asked %q", b.String())
		}
	}
}

func TestProgressInAPipe(t *testing.T) {
	s, b := stream(0, false)
	p := NewProgress(s, "nginx")
	p.Update("aaa", "fetch", 10, 2_000_000, false)
	p.Update("aaa", "done", 2_000_000, 2_000_000, true)
	p.Update("aaa", "done", 2_000_000, 2_000_000, true)
	p.Update("b\x1b", "exists", 0, 0, true)
	p.Finish()
	if want := "nginx: aaa: done (2.0 MB)\nnginx: b\uFFFD: exists\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}

func TestProgressOnATerminal(t *testing.T) {
	s, b := stream(60, false)
	p := NewProgress(s, "nginx")
	now := time.Unix(0, 0)
	p.now = func() time.Time { return now }
	p.Update("aaa", "fetch", 500, 1000, false)
	p.Update("bbb", "fetch", 10, 3000, false) // too soon to draw
	if n := strings.Count(b.String(), "\n"); n != 1 {
		t.Errorf("%d lines drawn: %q", n, b.String())
	}
	b.Reset()
	now = now.Add(time.Second)
	p.Update("bbb", "fetch", 1500, 3000, false)
	lines := strings.Split(b.String(), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "\x1b[1A\x1b[K"+"aaa") || !strings.Contains(lines[2], "total") ||
		!strings.Contains(lines[2], "2.0 kB/4.0 kB") || !strings.Contains(lines[0], "#.") {
		t.Errorf("%q", b.String())
	}
	for _, l := range lines {
		if n := len([]rune(strings.TrimPrefix(strings.TrimPrefix(l, "\x1b[1A"), "\x1b[K"))); n >= 60 {
			t.Errorf("a line of %d would wrap: %q", n, l)
		}
	}
	b.Reset()
	p.Clear()
	if b.String() != "\x1b[3A\x1b[J" {
		t.Errorf("%q", b.String())
	}
}

func TestTotalWithRateAndTimeLeft(t *testing.T) {
	s, b := stream(100, false)
	p := NewProgress(s, "nginx")
	now := time.Unix(0, 0)
	p.now = func() time.Time { return now }
	p.Update("aaa", "fetch", 500, 1000, false)
	now = now.Add(time.Second)
	b.Reset()
	p.Whole(2_000_000, 10_000_000, 1_000_000, 7500*time.Millisecond)
	if lines := strings.Split(b.String(), "\n"); len(lines) != 3 || !strings.HasSuffix(lines[1], "2.0 MB/10 MB  1.0 MB/s, 8s left") {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	p.Update("aaa", "done", 1000, 1000, true)
	p.Finish()
	if strings.Contains(b.String(), "left") {
		t.Errorf("time left at the end: %q", b.String())
	}
	pipe, out := stream(0, false)
	q := NewProgress(pipe, "nginx")
	q.Whole(1, 2, 3, 4)
	if out.Len() > 0 {
		t.Errorf("a pipe got %q", out.String())
	}
}

func TestNarrowBars(t *testing.T) {
	for width := 1; width < 100; width++ {
		note := (whole{rate: 1e6, left: time.Minute}).note()
		for _, x := range []part{{name: "aaaaaaaaaaaa", step: "fetch", done: 1, total: 2}, {name: "total", done: 9e15, total: 9e15}, {name: "x"}} {
			if n := len([]rune(bar(x, width, note))); n >= max(width, 2) {
				t.Errorf("width %d: %d columns: %q", width, n, bar(x, width, note))
			}
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_960: "10 kB", 1_234_567: "1.2 MB", 999_600: "1.0 MB", 53_000_000: "53 MB", 2e12: "2.0 TB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 64 << 20: "64 MiB", 34_300_000: "33 MiB", 1<<30 - 1: "1 GiB", 5 << 29: "2.5 GiB"} {
		if got := Memory(n); got != want {
			t.Errorf("Memory(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "less than a second", time.Second: "1 second", 119 * time.Second: "1 minute", 50 * time.Hour: "2 days"} {
		if got := Ago(d); got != want {
			t.Errorf("Ago(%v) = %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "0s", 59 * time.Second: "59s", 90 * time.Minute: "1h", 47 * time.Hour: "47h", 48 * time.Hour: "2d"} {
		if got := Short(d); got != want {
			t.Errorf("Short(%v) = %s, want %s", d, got, want)
		}
	}
	at := time.Unix(1_700_000_000, 0).UTC()
	if s, _ := stream(0, false); s.Since(at, at.Add(time.Hour)) != "2023-11-14T22:13:20Z" || s.Since(time.Time{}, at) != "" {
		t.Error("a pipe gets RFC 3339")
	}
	if s, _ := stream(80, false); s.Since(at, at.Add(time.Hour)) != "1h ago" {
		t.Error("people get a length of time")
	}
}
