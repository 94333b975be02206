package unit

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"512MiB": 512 << 20, "512M": 512 << 20, "512m": 512 << 20, "512MB": 512 << 20, "1GiB": 1 << 30, "1g": 1 << 30,
		"1.5g": 3 << 29, "10 KiB": 10 << 10, "2T": 2 << 40, "7b": 7, "0B": 0,
	} {
		if got, err := ParseSize(text); got != want || err != nil {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "512", "MiB", "-1MiB", "1e3MiB", "1..2MiB", "5Q", "99999999999TiB", "0x10M", "1 2M", "NaNM"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
	}
	for size, want := range map[Size]string{0: "0B", 1: "1B", 1 << 10: "1KiB", 1536 << 20: "1536MiB", 1 << 30: "1GiB", 1000: "1000B", 3 << 40: "3TiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d: got %s, want %s", size, got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]string{"90s": "1m30s", "60s": "1m", "3600s": "1h", "1h0m5s": "1h0m5s", "100ms": "100ms", "0": "0s", "0s": "0s", "10m": "10m", "1.5h": "1h30m", "20h": "20h"} {
		d, err := ParseDuration(text)
		if err != nil || d.String() != want {
			t.Errorf("%s: got %s, %v", text, d, err)
		}
		var back Duration
		if err := back.UnmarshalText([]byte(d.String())); err != nil || back != d {
			t.Errorf("%s is read back as %s, %v", d, back, err)
		}
	}
	for _, text := range []string{"", "30", "-5s", "1d", "s", "1m30"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q: got %s", text, time.Duration(d))
		}
	}
}

func TestSignals(t *testing.T) {
	for text, want := range map[string]string{"SIGTERM": "SIGTERM", "term": "SIGTERM", "15": "SIGTERM", "9": "SIGKILL", "31": "SIGSYS", "winch": "SIGWINCH",
		"SIGRTMIN+3": "SIGRTMIN+3", "37": "SIGRTMIN+3", "34": "SIGRTMIN", "rtmax": "SIGRTMIN+30", "SIGRTMAX-1": "SIGRTMIN+29", "64": "SIGRTMIN+30"} {
		if got, err := ParseSignal(text); got != want || err != nil {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "32", "33", "65", "SIGFOO", "RTMIN+31", "RTMAX+1", "RTMINx"} {
		if got, err := ParseSignal(text); err == nil {
			t.Errorf("%q: got %s", text, got)
		}
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                       nil,
		" \t\n":                  nil,
		"a  b":                   {"a", "b"},
		`a "b c" 'd "e"'`:        {"a", "b c", `d "e"`},
		`a\ b \\ \"`:             {"a b", `\`, `"`},
		`"a\"b\$c\d"`:            {`a"b$c\d`},
		`'a\b'`:                  {`a\b`},
		`x'' ""`:                 {"x", ""},
		"sh -c 'exec \"$0\"' $A": {"sh", "-c", `exec "$0"`, "$A"},
		"a \\\n b":               {"a", "b"},
	} {
		if got, err := splitWords(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{`"a`, `'a`, `a\`} {
		if got, err := splitWords(text); err == nil {
			t.Errorf("%q: got %q", text, got)
		}
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"web", "0", "web-1", "my.app", "a_B", "v1.x", "web.1a", strings.Repeat("a", 63)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "Web", "-a", ".a", "a b", "a/b", "web.1", "web.1-7f3k", "a.b.22", strings.Repeat("a", 64), "é", "a\n"} {
		if CheckName(name) == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

func TestImages(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0a", 32)
	for _, ref := range []string{"nginx", "nginx:1.27", "library/nginx", "localhost:5000/a/b-c:x", "ghcr.io/a__b/c.d" + digest, "nginx:1" + digest, "[::1]:5000/a",
		"123456789012.dkr.ecr.ap-northeast-1.amazonaws.com/web:1.7.4", "127.0.0.1:5000/busybox:latest"} {
		if err := checkImage(ref); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []string{"", "Nginx", "nginx:", "nginx@sha256:00", ":1", "a b", "a//b", "/a", "a/", "http://a/b", "-v"} {
		if checkImage(ref) == nil {
			t.Errorf("%q is taken", ref)
		}
	}
}

func TestInterpolate(t *testing.T) {
	value := func(name string) (string, bool) {
		switch name {
		case "A":
			return "1", true
		case "EMPTY":
			return "", true
		}
		return "", false
	}
	for text, want := range map[string]string{
		"$A ${A} $$ $": "$A 1 $$ $", "${A}${A}": "11", "$${A}": "${A}", "$$${A}": "$${A}", "${EMPTY}": "", "${EMPTY:-d}": "d", "${X:-}": "",
		"${X:-a${A}b}": "a1b", "${X:-$${A}": "${A", "${A:?must}": "1", "a}b": "a}b",
	} {
		if got, _, err := interpolate(text, value); got != want || err != nil {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	}
	for text, at := range map[string]int{"${X}": 0, "a ${X}": 2, "${": 0, "${A": 0, "x${}": 1, "${A-b}": 0, "${1A}": 0, "${EMPTY:?x}": 0, "${X:?}": 0} {
		if got, where, err := interpolate(text, value); err == nil || where != at {
			t.Errorf("%s: got %q, %d, %v", text, got, where, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	d := Defaults{Restart: RestartPolicy{Condition: OnFailure, Delay: Duration(5 * time.Minute)}, StopGracePeriod: Duration(time.Second), Logging: Logging{MaxFile: 9}}
	u, _, err := Parse("a.yaml", []byte("image: a\nrestart_policy: {max_attempts: 3}\n"), Options{Defaults: d})
	if err != nil {
		t.Fatal(err)
	}
	c := u.Containers[0]
	if r := u.Restart; r.Condition != OnFailure || r.MaxDelay != r.Delay || r.MaxAttempts != 3 || r.Interval != Duration(10*time.Minute) {
		t.Errorf("got %+v", r)
	}
	if c.StopGracePeriod != Duration(time.Second) || c.Logging != (Logging{MaxSize: 10 << 20, MaxFile: 9}) {
		t.Errorf("got %+v", c)
	}
}

func TestReference(t *testing.T) {
	const path = "testdata/reference.md"
	if *update {
		if err := os.WriteFile(path, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := Reference(); got != string(want) {
		t.Errorf("the reference is not the stored one, see -update:\n%s", got)
	}
}

// The table is whole: no key twice, each with a text, and none that works
// without being read.
func TestTable(t *testing.T) {
	var walk func(path string, keys []Key)
	walk = func(path string, keys []Key) {
		seen := map[string]bool{}
		for _, k := range keys {
			if seen[k.Name] || k.Text == "" || k.Type == "" {
				t.Errorf("%s%s is twice there, or without text or type", path, k.Name)
			}
			seen[k.Name] = true
			walk(path+k.Name+".", k.Keys)
		}
	}
	walk("", Keys())
	for _, f := range unitTable.fields {
		if f.Later == (f.set != nil) {
			t.Errorf("%s: later is %v, but it is read: %v", f.Name, f.Later, f.set != nil)
		}
	}
	for word := range unitTable.elsewhere {
		for _, k := range Keys() {
			if k.Name == word {
				t.Errorf("%s is a key and a word of elsewhere", word)
			}
		}
	}
}
