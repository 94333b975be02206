package integration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/integration/harness"
	"github.com/wherry-run/wherry/supervisor/api"
)

// events is every event so far, as `events --format json` tells them.
func events(t *testing.T, h *harness.Host, units ...string) (all []api.Event) {
	t.Helper()
	for line := range strings.Lines(h.OK(append([]string{"events", "--format", "json"}, units...)...)) {
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("event %q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// TestEvents: the numbers only grow, also over daemons that were killed or
// stopped, nothing that was told is forgotten, and --since goes on after one.
func TestEvents(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	h.Apply("a", sleeper(r.Ref("busybox")))
	var before []api.Event
	for _, end := range []func(){h.KillDaemon, h.StopDaemon} {
		before = events(t, h)
		end()
		h.Start()
		after := events(t, h)
		if len(after) <= len(before) {
			t.Fatalf("%d events after %d", len(after), len(before))
		}
		for i, e := range after {
			if i > 0 && e.Seq <= after[i-1].Seq {
				t.Errorf("event %d after event %d", e.Seq, after[i-1].Seq)
			}
			if i < len(before) && (e.Seq != before[i].Seq || e.Type != before[i].Type || e.Message != before[i].Message) {
				t.Errorf("event %+v was %+v", e, before[i])
			}
			if e.Type == "" || e.Message == "" || e.Time.IsZero() {
				t.Errorf("event without type, message or time: %+v", e)
			}
		}
	}
	for _, e := range events(t, h, "a") {
		if e.Unit != "a" {
			t.Errorf("events of a tell of %+v", e)
		}
	}
}
