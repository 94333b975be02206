package supervisor

import (
	"os"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/supervisor/plan"
)

// The diagram in doc.go is the one that the table prints.
func TestDiagram(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for line := range strings.Lines(plan.Diagram()) {
		want.WriteString("//\t" + line)
	}
	if !strings.Contains(string(doc), want.String()) {
		t.Errorf("doc.go has no\n%s", want.String())
	}
}
