package unit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// Whatever is in a file: no panic, no long thought, an error has a place in the
// file, and a unit survives being stored.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		begin := time.Now()
		u, _, err := Parse("web.yaml", data, Options{Dir: "/srv", ReadFile: func(string) ([]byte, error) { return nil, fs.ErrNotExist }})
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
		if err != nil {
			checkErrors(t, data, err)
			return
		}
		stored, err := json.Marshal(u)
		if err != nil {
			t.Fatal(err)
		}
		var back Unit
		if err := json.Unmarshal(stored, &back); err != nil {
			t.Fatalf("%s: %v", stored, err)
		}
		if !Equal(u, back) {
			t.Errorf("stored and read back, it differs: %v", Diff(u, back))
		}
		if len(Diff(u, back)) > 0 || CheckName(u.Name) != nil || !sound(&u) {
			t.Errorf("a unit that cannot be: %s", stored)
		}
	})
}

// sound tells whether the containers can be started, and end.
func sound(u *Unit) bool {
	essential := false
	began := map[string]bool{}
	for _, c := range StartOrder(u.Containers) {
		essential = essential || u.Essential(c)
		if began[c.Name] || c.Image == "" || CheckContainerName(c.Name) != nil || u.Essential(c) && u.Awaited(c.Name) {
			return false
		}
		for _, d := range c.DependsOn {
			if !began[d.Container] || d.Condition != Started && d.Condition != CompletedSuccessfully {
				return false
			}
		}
		began[c.Name] = true
	}
	return essential
}

func checkErrors(t *testing.T, data []byte, err error) {
	var all Errors
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("an error of another type: %v", err)
	}
	// YAML ends lines at a lone carriage return as well.
	lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 2
	for _, e := range all {
		if e.Line < 1 || e.Column < 1 || e.Line > lines || e.Message == "" {
			t.Errorf("no place in a file of %d lines: %+v", lines, e)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add("a 'b c'", "", `\"`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		_, _ = splitWords(a)
		words := []string{strings.ToValidUTF8(a, ""), strings.ToValidUTF8(b, ""), strings.ToValidUTF8(c, "")}
		got, err := splitWords(joinWords(words))
		if err != nil || !slices.Equal(got, words) {
			t.Errorf("%q became %q, %v", words, got, err)
		}
	})
}

func FuzzShortForms(f *testing.F) {
	f.Add("127.0.0.1:8000-8001:80-81/udp")
	f.Add("./a:/b:ro")
	f.Add("SIGRTMIN+3")
	f.Fuzz(func(t *testing.T, text string) {
		if ports, err := ParsePort(text); err == nil {
			for _, p := range ports {
				back, err := ParsePort(p.String())
				if err != nil || len(back) != 1 || back[0] != p {
					t.Errorf("%q gives %+v, shown as %s, read as %+v, %v", text, p, p, back, err)
				}
			}
		}
		if v, err := parseVolume(text, "/srv"); err == nil {
			if back, err := parseVolume(v.String(), ""); err != nil || back != v {
				t.Errorf("%q gives %+v, shown as %s, read as %+v, %v", text, v, v, back, err)
			}
		}
		if s, err := ParseSignal(text); err == nil {
			if back, err := ParseSignal(s); err != nil || back != s {
				t.Errorf("%q gives %s, read as %s, %v", text, s, back, err)
			}
		}
		if size, err := ParseSize(text); err == nil {
			if back, err := ParseSize(Size(size).String()); err != nil || back != size {
				t.Errorf("%q gives %d, read as %d, %v", text, size, back, err)
			}
		}
		if d, err := ParseDuration(text); err == nil {
			if back, err := ParseDuration(d.String()); err != nil || back != d {
				t.Errorf("%q gives %s, read as %s, %v", text, d, back, err)
			}
		}
	})
}

// Files made to be slow or to exhaust the stack are refused quickly.
func TestHostileFiles(t *testing.T) {
	for name, text := range map[string]string{
		"brackets":     strings.Repeat("[", 200000),
		"braces":       strings.Repeat("{a: ", 60000),
		"dashes":       strings.Repeat("- ", 100000),
		"questions":    strings.Repeat("? ", 100000),
		"indentation":  ladder(600),
		"tags":         strings.Repeat("!!str ", 40000),
		"anchors":      strings.Repeat("&a ", 60000),
		"aliases":      "x-a: &a [1,1]\n" + bomb(40) + "image: x\ncommand: *x39\n",
		"many keys":    manyKeys(3000),
		"large":        strings.Repeat("# x\n", 100000),
		"not text":     "image: \xff\xfe",
		"many errors":  "image: nginx\nports: [" + strings.Repeat("x,", 5000) + "]",
		"colons":       strings.Repeat("a: ", 60000),
		"quotes":       "image: \"" + strings.Repeat("\\", 100001),
		"nested":       "image: " + strings.Repeat("${A:-", 30000) + strings.Repeat("}", 30000),
		"many nested":  "image: " + strings.Repeat(strings.Repeat("${A:-", 16)+strings.Repeat("}", 16), 2000),
		"placeholders": "image: " + strings.Repeat("${A:-", 30000),
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			_, _, err := Parse("web.yaml", []byte(text), Options{})
			if took := time.Since(begin); took > 30*time.Second { // slow machines, -race
				t.Errorf("took %s", took)
			} else {
				t.Log(took)
			}
			if err == nil {
				t.Fatal("is taken")
			}
			var all Errors
			if !errors.As(err, &all) || len(all) > mostErrors+1 {
				t.Errorf("got %d errors", len(all))
			}
		})
	}
}

func ladder(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func bomb(n int) string {
	var b strings.Builder
	last := "a"
	for i := range n {
		name := "x" + string(rune('0'+i/10)) + string(rune('0'+i%10))
		if i == n-1 {
			name = "x39"
		}
		b.WriteString("x-" + name + ": &" + name + " [*" + last + ", *" + last + "]\n")
		last = name
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + time.Duration(i).String() + ": 1\n")
	}
	return b.String()
}

// Many keys on one line are no nesting.
func TestWideFiles(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"image": "nginx", "environment": {`)
	for i := range 500 {
		fmt.Fprintf(&b, `"A%d": "1", `, i)
	}
	b.WriteString(`"B": "2"}, "command": [` + strings.Repeat(`"x", `, 500) + `"y"]}`)
	u, _, err := Parse("web.json", []byte(b.String()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c := u.Containers[0]; len(c.Environment) != 501 || len(c.Command) != 501 {
		t.Errorf("got %d variables and %d words", len(c.Environment), len(c.Command))
	}
}
