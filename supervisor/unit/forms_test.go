package unit

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// forms are the checks with the expressions that they stand for.
var forms = []struct {
	name  string
	check func(string) bool
	form  *regexp.Regexp
}{
	{"name", isName, regexp.MustCompile(`^[a-z0-9][a-zA-Z0-9_.-]*$`)},
	{"run", isRunName, regexp.MustCompile(`\.[0-9]+(-[a-zA-Z0-9]+)?$`)},
	{"volume", isVolumeName, regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)},
	{"user", isUser, regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.@-]*\$?(:[a-zA-Z0-9_][a-zA-Z0-9_.@-]*\$?)?$`)},
	{"image", isImage, regexp.MustCompile(`^((\[[0-9a-fA-F:]+\]|[a-zA-Z0-9.-]+)(:[0-9]+)?/)?` +
		`[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*)*` +
		`(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$`)},
}

func sameForms(t *testing.T, text string) {
	t.Helper()
	for _, f := range forms {
		if got, want := f.check(text), f.form.MatchString(text); got != want {
			t.Errorf("%s %q: %v, want %v", f.name, text, got, want)
		}
	}
}

var formSamples = []string{
	"", "web", "Web", "web.1", "web.1-7f3k", "web.1-", "web.-1", "a.1.2", "a.x", "-a", "_a", ".a", "a$", "$", "a:b", "a$:b$", "a$b", "a:", ":a",
	"a@b", "0:0", "a b", "a\n", "é", "nginx:1.27", "nginx:", "nginx:-1", "nginx:_1", "a/b", "a//b", "/a", "a/", "A/b", "A/B", "a..b", "a.b", "a._b", "a__b",
	"a___b", "a--b", "a-", "a-.b", "host:5000/a:t", "host:/a", "host:x/a", "host:5000/a:t/b", "[::1]:5000/a", "[::1]/a", "[::1]x/a", "[]/a", "[::1/a", "a:t:u",
	"a@sha256:" + strings.Repeat("0", 64), "a:t@sha256:" + strings.Repeat("f", 64), "a@sha256:" + strings.Repeat("F", 64), "a@sha256:0", "a@",
	"a@sha256:" + strings.Repeat("0", 64) + "@", "@sha256:" + strings.Repeat("0", 64), "a:" + strings.Repeat("x", 128), "a:" + strings.Repeat("x", 129),
	strings.Repeat("v", 255), strings.Repeat("v", 256), "[::1]:/a", "[::1]", "localhost:5000",
}

func TestFormsAreTheirExpressions(t *testing.T) {
	for _, text := range formSamples {
		sameForms(t, text)
	}
	const letters = "abzAZ09._-:/@[]$ \x00"
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		b := make([]byte, random.IntN(10))
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		sameForms(t, string(b))
	}
}

func FuzzForms(f *testing.F) {
	for _, text := range formSamples {
		f.Add(text)
	}
	f.Fuzz(sameForms)
}
