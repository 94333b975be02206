package cosign

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
)

// TestRecorded reads what cosign 3.1.3 stored in a registry when it signed with
// `--use-signing-config=false --tlog-upload=false`, with and without
// `--new-bundle-format=false` and `--registry-referrers-mode=oci-1-1`.
func TestRecorded(t *testing.T) {
	b, err := os.ReadFile("testdata/cosign-3.1.3.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name      string            `json:"name"`
		Subject   string            `json:"subject"`
		Key       string            `json:"key"`
		Manifests map[string]string `json:"manifests"`
		Blobs     map[string]string `json:"blobs"`
		Referrers []Descriptor      `json:"referrers"`
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		s := newShelf()
		s.referrers = c.Referrers
		for id, m := range c.Manifests {
			s.manifests[id] = []byte(m)
		}
		for id, b := range c.Blobs {
			s.blobs[id] = []byte(b)
		}
		key, other := try(ParseKey([]byte(c.Key))), try(ParseKey(imagetest.PublicPEM(imagetest.NewKey())))
		n := 0
		err := Visit(t.Context(), s, c.Subject, func(g *Signature) bool {
			n++
			if err := g.Check(); err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
			if err := g.VerifyKey(key); err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
			if g.VerifyKey(other) == nil {
				t.Errorf("%s: another key counts", c.Name)
			}
			return true
		})
		if err != nil || n != 1 {
			t.Errorf("%s: %d signatures, %v", c.Name, n, err)
		}
	}
	if len(cases) != 9 {
		t.Errorf("%d cases", len(cases))
	}
}
