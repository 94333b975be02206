package bundle

import "testing"

func TestSliceOf(t *testing.T) {
	for parent, want := range map[string]string{
		"/wherry.slice/wherry-cargo.service": "wherry.slice",
		"/a.slice/a-b.slice/x.service":       "a-b.slice",
		"/wherry":                            "wherry.slice",
		"/two-of/us":                         "two_of_us.slice",
		"/a+b":                               `a\x2bb.slice`,
	} {
		if got := SliceOf(parent); got != want {
			t.Errorf("%s: %s, want %s", parent, got, want)
		}
	}
}

func TestUnitWord(t *testing.T) {
	for word, want := range map[string]string{"web.1-7f3k": "web.1-7f3k", "A_1+b": `A_1\x2bb`, "a/b": `a\x2fb`} {
		if got := UnitWord(word); got != want {
			t.Errorf("%s: %s, want %s", word, got, want)
		}
	}
}
