package keeper

import (
	"slices"
	"testing"
)

func TestExecKeysAreThoseOfOneContainer(t *testing.T) {
	var e execKeys
	e.add("a", "1")
	e.add("a", "2")
	e.add("b", "3")
	e.remove("a", "1")
	if got := e.of("a"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("of a: %s", got)
	}
	e.remove("a", "2")
	e.remove("nobody", "9")
	if len(e.of("a")) > 0 || len(e.all) != 1 {
		t.Errorf("left: %v", e.all)
	}
}
