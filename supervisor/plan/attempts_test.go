package plan

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"testing/quick"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// crash is a run that lived for d and ended with code 1 at t0.
func crash(id string, d time.Duration) Run {
	return Run{ID: id, Phase: Exited, Code: 1, Revision: 2, StartedAt: t0.Add(-d), EndedAt: t0}
}

func clean(r Run) Run { r.Clean, r.Code = true, 0; return r }

func failed(id string) Run {
	return Run{ID: id, Phase: Failed, Revision: 2, EndedAt: t0, Error: "image x: not found"}
}

func TestAfter(t *testing.T) {
	minute := unit.Duration(time.Minute)
	any := unit.RestartPolicy{Condition: unit.Any, ResetAfter: minute, NoRestartExitCodes: []int{78}}
	onFailure := unit.RestartPolicy{Condition: unit.OnFailure, ResetAfter: minute}
	never := unit.RestartPolicy{Condition: unit.Never, ResetAfter: minute}
	twice := unit.RestartPolicy{Condition: unit.Any, MaxAttempts: 2, Interval: 10 * minute}
	before := Attempts{Failures: 3, Revision: 2, Run: "w.1-0", Last: t0.Add(-time.Minute)}
	code := func(r Run, n int) Run { r.Code = n; return r }
	for _, c := range []struct {
		name   string
		policy unit.RestartPolicy
		before Attempts
		run    Run
		want   Attempts
	}{
		{"first crash", any, Attempts{}, crash("w.1-1", time.Second), Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1"}},
		{"one more", any, before, crash("w.1-1", time.Second), Attempts{Failures: 4, Last: t0, Revision: 2, Run: "w.1-1"}},
		{"a clean end counts too", any, before, clean(crash("w.1-1", time.Second)), Attempts{Failures: 4, Last: t0, Revision: 2, Run: "w.1-1"}},
		{"after a good run", any, before, crash("w.1-1", time.Minute), Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1"}},
		{"failed start", any, before, failed("w.1-1"), Attempts{Failures: 4, Last: t0, Revision: 2, Run: "w.1-1", Error: "image x: not found"}},
		{"failed start, on-failure", onFailure, before, failed("w.1-1"), Attempts{Failures: 4, Last: t0, Revision: 2, Run: "w.1-1", Error: "image x: not found"}},
		{"failed start, none", never, Attempts{}, failed("w.1-1"), Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1", Error: "image x: not found", Done: true}},
		{"counted already", any, Attempts{Failures: 3, Revision: 2, Run: "w.1-1"}, crash("w.1-1", 0), Attempts{Failures: 3, Revision: 2, Run: "w.1-1"}},
		{"of an older revision", any, Attempts{Failures: 3, Revision: 3}, crash("w.1-1", 0), Attempts{Failures: 3, Revision: 3}},
		{"of a newer revision", any, Attempts{Failures: 3, Revision: 1, Done: true}, crash("w.1-1", 0), Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1"}},
		{"stopped on purpose", never, before, func() Run { r := crash("w.1-1", 0); r.Stopped = true; return r }(), Attempts{Failures: 3, Revision: 2, Run: "w.1-1", Last: t0.Add(-time.Minute)}},
		{"no end recorded", any, Attempts{}, Run{ID: "w.1-1", Phase: Exited, Revision: 2, Code: -1}, Attempts{Failures: 1, Last: t0.Add(time.Hour), Revision: 2, Run: "w.1-1"}},

		{"on-failure, clean", onFailure, before, clean(crash("w.1-1", 0)), Attempts{Failures: 4, Last: t0, Revision: 2, Run: "w.1-1", Done: true}},
		{"on-failure, signal", onFailure, before, code(crash("w.1-1", 0), -1), Attempts{Failures: 4, Last: t0, Revision: 2, Run: "w.1-1"}},
		{"none, clean", never, Attempts{}, clean(crash("w.1-1", 0)), Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1", Done: true}},
		{"none, crash", never, Attempts{}, crash("w.1-1", 0), Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1", Done: true, Error: "exited with code 1"}},
		{"a code not to restart for", any, Attempts{}, code(crash("w.1-1", 0), 78), Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1", Done: true, Error: "exited with code 78"}},

		{"first of two", twice, Attempts{}, crash("w.1-1", 0), Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1", Starts: []time.Time{t0}}},
		{"the window slides", twice, Attempts{Revision: 2, Starts: []time.Time{t0.Add(-10 * time.Minute), t0.Add(-time.Minute)}}, crash("w.1-1", 0),
			Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1", Starts: []time.Time{t0.Add(-time.Minute), t0}}},
		{"gives up", twice, Attempts{Revision: 2, Starts: []time.Time{t0.Add(-9 * time.Minute), t0.Add(-time.Minute)}}, crash("w.1-1", 0),
			Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1", Starts: []time.Time{t0.Add(-9 * time.Minute), t0.Add(-time.Minute)}, Done: true, Error: "gave up after 2 restarts within 10m: exited with code 1"}},
		{"gives up clean ends too", twice, Attempts{Revision: 2, Starts: []time.Time{t0, t0}}, clean(crash("w.1-1", 0)),
			Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1", Starts: []time.Time{t0, t0}, Done: true, Error: "gave up after 2 restarts within 10m: exited with code 0"}},
		{"restarts from before the clock was set back", twice, Attempts{Revision: 2, Starts: []time.Time{t0.Add(time.Hour), t0.Add(2 * time.Hour)}}, crash("w.1-1", 0),
			Attempts{Failures: 1, Last: t0, Revision: 2, Run: "w.1-1", Starts: []time.Time{t0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			held := fmt.Sprintf("%+v", c.before)
			got := After(c.policy, c.before, c.run, t0.Add(time.Hour))
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, c.want)
			}
			if fmt.Sprintf("%+v", c.before) != held {
				t.Errorf("the attempts handed in were changed to %+v", c.before)
			}
			if again := After(c.policy, got, c.run, t0.Add(2*time.Hour)); !reflect.DeepEqual(again, got) {
				t.Errorf("counted twice: %+v", again)
			}
		})
	}
}

func TestResetKeepsTheLastEndCounted(t *testing.T) {
	p := unit.RestartPolicy{Condition: unit.Never}
	r := crash("w.1-1", 0)
	a := After(p, Attempts{}, r, t0).Reset()
	if a.Done || a.Failures != 0 {
		t.Errorf("reset left %+v", a)
	}
	if again := After(p, a, r, t0); again.Done {
		t.Errorf("the end before the reset counts again: %+v", again)
	}
}

func TestDelayGrowsToItsLimit(t *testing.T) {
	p := policy()
	for n, want := range []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
		if got := Delay(p, Attempts{Failures: n}, "web.1"); got != want {
			t.Errorf("%d failures: %s, want %s", n, got, want)
		}
	}
	if got := Delay(p, Attempts{Failures: 10000}, "web.1"); got != time.Minute {
		t.Errorf("got %s", got)
	}
	p.MaxDelay = 0
	if got := Delay(p, Attempts{Failures: 10000}, "web.1"); got != ceiling {
		t.Errorf("without max_delay got %s", got)
	}
}

func TestDelayIsBounded(t *testing.T) {
	bounded := func(delay, most int64, multiplier, jitter float64, failures int, run string) bool {
		p := unit.RestartPolicy{Delay: unit.Duration(delay), MaxDelay: unit.Duration(most), Multiplier: multiplier, Jitter: jitter}
		a := Attempts{Failures: failures, Run: run}
		got := Delay(p, a, "web.1")
		limit := float64(ceiling)
		if most > 0 {
			limit = float64(most)
		}
		share := 0.0
		if jitter > 0 {
			share = math.Min(jitter, 1)
		}
		return got >= 0 && float64(got) <= limit*(1+share)*(1+1e-9) && got == Delay(p, a, "web.1")
	}
	if err := quick.Check(bounded, &quick.Config{MaxCount: 20000}); err != nil {
		t.Error(err)
	}
	for _, odd := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if !bounded(1e9, 6e10, odd, odd, 50, "r") {
			t.Errorf("%v as multiplier and jitter breaks the bound", odd)
		}
	}
}

// Instances that crash together must not come back together.
func TestJitterSpreads(t *testing.T) {
	p := policy()
	p.Jitter = 1
	quarter := map[int]int{}
	for n := range 400 {
		a := Attempts{Failures: 1, Run: fmt.Sprintf("web.%d-aaaa", n)}
		extra := Delay(p, a, Instance("web", n)) - 100*time.Millisecond
		quarter[int(extra/(25*time.Millisecond))]++
	}
	for q := range 4 {
		if quarter[q] < 60 {
			t.Errorf("quarter %d of the jitter has %d of 400", q, quarter[q])
		}
	}
}

func TestEndingTellsOfRunsThatHardlyBegan(t *testing.T) {
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, r := range map[string]Run{
		"exited with code 1":                                         {Code: 1, EndedAt: at.Add(time.Second)},
		"exited with code 1 12ms after its start":                    {Code: 1, EndedAt: at.Add(12 * time.Millisecond)},
		"exited with code 0 1ms after its start":                     {Clean: true, EndedAt: at.Add(-time.Millisecond)},
		"was ended by SIGKILL (out of memory)":                       {Code: -1, Error: "was ended by SIGKILL (out of memory)", EndedAt: at.Add(time.Hour)},
		"ended by a signal or in an unknown way 5ms after its start": {Code: -1, EndedAt: at.Add(5 * time.Millisecond)},
	} {
		r.Phase, r.StartedAt = Exited, at
		if got := ending(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestClockJumps: a clock that is set by a year, in either direction, makes nobody wait, and takes
// no time from a run that was long enough.
func TestClockJumps(t *testing.T) {
	p := policy()
	p.MaxAttempts = 3
	const year = 365 * 24 * time.Hour
	for _, jump := range []time.Duration{-year, year} {
		a := Attempts{}
		for n := range 3 { // a crash loop, with the clock set in the midst of it
			at := t0.Add(time.Duration(n) * time.Second)
			if n == 2 {
				at = at.Add(jump)
			}
			a = After(p, a, Run{ID: string(rune('a' + n)), Phase: Exited, Code: 1, StartedAt: at.Add(-time.Millisecond), EndedAt: at}, at)
		}
		if until, held := next(p, a, "web.1", t0.Add(jump+2*time.Second)); !held || until.Sub(t0.Add(jump)) > time.Minute || a.Done {
			t.Errorf("%s: %v until %v, %+v", jump, held, until, a)
		}
		if until, held := next(p, a, "web.1", t0.Add(3*time.Second)); held && until.After(t0.Add(time.Minute+clockSlack)) {
			t.Errorf("%s, and back: waits until %v", jump, until)
		}
		long := After(p, Attempts{Failures: 7}, Run{ID: "x", Phase: Exited, Code: 1, StartedAt: t0, EndedAt: t0.Add(jump)}, t0.Add(jump))
		if long.Failures != 1 {
			t.Errorf("%s: %d failures after a run of unknown length", jump, long.Failures)
		}
		if s := ending(Run{Phase: Exited, Code: 1, StartedAt: t0, EndedAt: t0.Add(jump)}); s != "exited with code 1" {
			t.Errorf("%s: %q", jump, s)
		}
	}
}
