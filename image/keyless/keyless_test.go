package keyless

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestIdentityCheck(t *testing.T) {
	for want, i := range map[string]Identity{
		"":                    {SubjectRegexp: "a|b", Issuer: "c"},
		"no identity given":   {Issuer: "c"},
		"no issuer given":     {Subject: "a"},
		"missing closing )":   {Subject: "a", IssuerRegexp: "("},
		"unexpected ): `a)|(": {SubjectRegexp: "a)|(b", Issuer: "c"},
	} {
		err := i.Check()
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", i, err, want)
		}
	}
}

func TestWhole(t *testing.T) {
	for _, c := range []struct {
		expr, text string
		want       bool
	}{
		{"a|b", "a", true}, {"a|b", "b", true}, {"a|b", "ax", false}, {"a|b", "xb", false}, {"a", "a\n", false}, {"(?m)^a$", "a\nb", false},
	} {
		if got := regexp.MustCompile(Whole(c.expr)).MatchString(c.text); got != c.want {
			t.Errorf("%q and %q: %v", c.expr, c.text, got)
		}
	}
	if Whole("") != "" {
		t.Error("no expression becomes one")
	}
}

// says is a verifier with one answer.
type says struct {
	res Result
	err error
}

func (v says) CheckRoot(context.Context, []byte) error         { return v.err }
func (v says) Verify(context.Context, Request) (Result, error) { return v.res, v.err }

func TestServe(t *testing.T) {
	ask := func(v Verifier, in string) (string, error) {
		var out bytes.Buffer
		err := Serve(t.Context(), v, strings.NewReader(in), &out)
		return out.String(), err
	}
	if out, err := ask(says{res: Result{Subject: "a"}}, `{"bundle":"e30="}`); err != nil || !strings.Contains(out, `"subject":"a"`) {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := ask(says{err: errors.New("no")}, `{"bundle":"e30="}`); err != nil || out != `{"error":"no"}`+"\n" {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := ask(says{}, `{}`); err != nil || !strings.Contains(out, "result") {
		t.Errorf("root: %s, %v", out, err)
	}
	if out, err := ask(says{err: &BrokenError{errors.New("no")}}, `{"bundle":"e30="}`); err == nil || out != "" {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := ask(says{}, "{"); err == nil {
		t.Error("half a request is answered")
	}
}

// TestCommandAnswers: whatever the program says but a clear yes is no yes.
func TestCommandAnswers(t *testing.T) {
	dir := t.TempDir()
	r := Request{Bundle: []byte("{}"), Identities: []Identity{{Subject: "a", Issuer: "b"}}}
	for i, c := range []struct {
		script string
		broken bool
		want   string // in the error; empty: a yes
	}{
		{`cat >/dev/null; echo '{"result":{"identity":0,"subject":"a"}}'`, false, ""},
		{`cat >/dev/null; sleep 5 & echo '{"result":{"identity":0,"subject":"a"}}'`, false, ""},
		{`cat >/dev/null; echo '{"error":"not he"}'`, false, "not he"},
		{`cat >/dev/null; echo '{}'`, true, "without a result"},
		{`cat >/dev/null; echo '{"result":{"identity":1}}'`, true, "without a result"},
		{`cat >/dev/null; echo '{"result":{"identity":-1}}'`, true, "without a result"},
		{`cat >/dev/null; echo '{"result":{"identity":0}}'; exit 1`, true, "exit status 1"},
		{`cat >/dev/null; echo oops >&2; kill -9 $$`, true, "oops"},
		{`cat >/dev/null`, true, "its answer"},
		{`echo "$SECRET$HOME" >&2; exit 1`, true, "exit status 1"},
	} {
		path := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("SECRET", "secret")
		res, err := Command(path).Verify(t.Context(), r)
		var broken *BrokenError
		if c.want == "" {
			if err != nil || res.Subject != "a" {
				t.Errorf("%s: %+v, %v", c.script, res, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &broken) != c.broken || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", c.script, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Command(filepath.Join(dir, "a")).Verify(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if b, err := json.Marshal(r); err != nil || bytes.Contains(b, []byte("digest")) {
		t.Errorf("%s, %v", b, err)
	}
}
