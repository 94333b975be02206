package ctl

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wherry-run/wherry/supervisor/api"
)

func TestParseKeys(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "ctrl-p,ctrl-q": "\x10\x11", "a": "a", "ctrl-x,x": "\x18x", "ctrl-@,ctrl-[,ctrl-_": "\x00\x1b\x1f", "CTRL-A": "\x01",
	} {
		if got, err := parseKeys(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"ctrl-", "ctrl-1", "ab", ",", "ctrl-pp", "é"} {
		if got, err := parseKeys(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestKeyReader(t *testing.T) {
	for _, c := range []struct {
		typed, keys, want string
		left              bool
	}{
		{"abc", "\x10\x11", "abc", false},
		{"ab\x10\x11cd", "\x10\x11", "ab", true},
		{"ab\x10cd", "\x10\x11", "ab\x10cd", false},
		{"\x10\x10\x11", "\x10\x11", "\x10", true},
		{"\x10\x10\x10a", "\x10\x11", "\x10\x10\x10a", false},
		{"a\x01b", "\x01", "a", true},
		{"a\x10\x11", "", "a\x10\x11", false},
	} {
		for name, from := range map[string]io.Reader{
			"at once": strings.NewReader(c.typed), "singly": iotest.OneByteReader(strings.NewReader(c.typed)),
		} {
			var got bytes.Buffer
			_, err := io.Copy(&got, &keyReader{from: from, keys: []byte(c.keys)})
			if errors.Is(err, api.ErrDetached) != c.left || err != nil && !c.left || got.String() != c.want {
				t.Errorf("%q %s: %q, %v", c.typed, name, &got, err)
			}
		}
	}
}
