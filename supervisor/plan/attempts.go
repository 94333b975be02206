package plan

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// ceiling bounds a back-off whose policy has no max_delay.
const ceiling = time.Hour

// clockSlack is how far ahead of the clock an end may lie. One further ahead
// was recorded before the clock was set back, and says nothing any more.
const clockSlack = time.Minute

// After counts the end of a run (phase Exited or Failed) and decides what
// becomes of its instance: tried again, or Done. A failed start counts like a
// crash. To count the same run twice changes nothing, so a daemon that died
// between a run's end and its record may simply count again.
//
// A run that was stopped on purpose is marked as counted and changes nothing
// else. A run older than what a already belongs to changes nothing at all.
func After(p unit.RestartPolicy, a Attempts, r Run, now time.Time) Attempts {
	if r.ID != "" && a.Run == r.ID {
		return a
	}
	if r.Revision < a.Revision || r.Revision == a.Revision && r.Restart < a.Restart {
		return a
	}
	if a.Revision != r.Revision || a.Restart != r.Restart {
		a = Attempts{}
	}
	a.Starts = slices.Clone(a.Starts)
	a.Run, a.Revision, a.Restart = r.ID, r.Revision, r.Restart
	if r.Stopped {
		return a
	}
	a.Last = r.EndedAt
	if a.Last.IsZero() {
		a.Last = now
	}
	a.Error = ""
	if r.Phase == Failed {
		a.Error = r.Error
	}
	if p.ResetAfter > 0 && lifetime(r) >= time.Duration(p.ResetAfter) {
		a.Failures = 0
	}
	a.Failures++
	if final(p, r) {
		a.Done, a.Error = true, verdict(r)
		return a
	}
	return count(p, a, r)
}

// count spends one of the policy's attempts, or gives up.
func count(p unit.RestartPolicy, a Attempts, r Run) Attempts {
	if p.MaxAttempts <= 0 {
		a.Starts = nil
		return a
	}
	a.Starts = slices.DeleteFunc(a.Starts, func(t time.Time) bool {
		// Without an interval every restart counts. One in the future is from
		// before the clock was set back.
		return t.After(a.Last) || p.Interval > 0 && a.Last.Sub(t) >= time.Duration(p.Interval)
	})
	if len(a.Starts) >= p.MaxAttempts {
		why := verdict(r)
		if why == "" {
			why = ending(r)
		}
		a.Done = true
		a.Error = fmt.Sprintf("gave up after %s%s: %s", restarts(len(a.Starts)), within(p), why)
		return a
	}
	a.Starts = append(a.Starts, a.Last)
	return a
}

// Reset is what `start` and `restart` make of an instance's attempts: none,
// but the last end stays counted, so that it does not count again.
func (a Attempts) Reset() Attempts {
	return Attempts{Revision: a.Revision, Restart: a.Restart, Run: a.Run}
}

// of gives the attempts that concern the wanted revision: those of an older
// one, or from before a `restart`, do not hold back a new start.
func (a Attempts) of(d Desired) Attempts {
	if a.Revision != d.Revision || a.Restart < d.Restart {
		return Attempts{}
	}
	return a
}

// Delay is how long after a.Last the next start waits: delay, multiplied for
// each failure in a row, at most max_delay, and longer by a share of up to
// jitter, which is a hash, so that the same attempt always waits as long.
func Delay(p unit.RestartPolicy, a Attempts, instance string) time.Duration {
	if a.Failures <= 0 || p.Delay <= 0 {
		return 0
	}
	limit := ceiling
	if p.MaxDelay > 0 {
		limit = time.Duration(p.MaxDelay)
	}
	factor := p.Multiplier
	if !(factor > 1) { // NaN too
		factor = 1
	}
	wait := float64(p.Delay) * math.Pow(factor, float64(a.Failures-1))
	wait = min(wait, float64(limit))
	share := p.Jitter
	if !(share > 0) {
		share = 0
	}
	wait *= 1 + min(share, 1)*spread(instance, a)
	// A float beyond the range of int64 would wrap around.
	return time.Duration(min(wait, float64(math.MaxInt64/2)))
}

// spread is a number from 0 up to 1 that depends on the run and the attempt.
func spread(instance string, a Attempts) float64 {
	h := fnv.New64a()
	h.Write([]byte(instance + "\x00" + a.Run + "\x00" + strconv.Itoa(a.Failures)))
	// FNV's high bits hardly move for short inputs that differ at the end.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

// next is when the back-off is over; false if it is.
func next(p unit.RestartPolicy, a Attempts, instance string, now time.Time) (time.Time, bool) {
	until := a.Last.Add(Delay(p, a, instance))
	if a.Failures <= 0 || !until.After(now) || a.Last.Sub(now) > clockSlack {
		return time.Time{}, false
	}
	return until, true
}

// final tells whether the policy leaves the instance as it ended.
func final(p unit.RestartPolicy, r Run) bool {
	if r.Phase == Exited && slices.Contains(p.NoRestartExitCodes, r.Code) {
		return true
	}
	switch p.Condition {
	case unit.Never:
		return true
	case unit.OnFailure:
		return r.Phase == Exited && r.Clean
	}
	return false
}

// lifetime is how long the run ran; zero if it never did.
func lifetime(r Run) time.Duration {
	if r.Phase != Exited || r.StartedAt.IsZero() || r.EndedAt.IsZero() {
		return 0
	}
	ran := r.EndedAt.Sub(r.StartedAt)
	if ran < -clockSlack {
		return math.MaxInt64 // the clock was set back meanwhile: nobody knows, and a service mostly runs for long
	}
	return ran
}

// verdict is the error of an ended run, empty for a success.
func verdict(r Run) string {
	if r.Phase == Exited && r.Clean {
		return ""
	}
	return ending(r)
}

// ending says how a run ended.
func ending(r Run) string {
	switch {
	case r.Phase == Failed && r.Error != "":
		return r.Error
	case r.Phase == Failed:
		return "the start failed"
	case r.Clean:
		return "exited with code 0" + soon(r)
	case r.Code < 0 && r.Error != "":
		return r.Error + soon(r)
	case r.Code < 0:
		return "ended by a signal or in an unknown way" + soon(r)
	}
	return "exited with code " + strconv.Itoa(r.Code) + soon(r)
}

// soon says how long a run ran that hardly began: then it is the program, its
// command or its configuration that is wrong.
func soon(r Run) string {
	ran := r.EndedAt.Sub(r.StartedAt)
	if r.StartedAt.IsZero() || r.EndedAt.IsZero() || ran == 0 || ran < -clockSlack || ran >= time.Second {
		return ""
	}
	// It may have ended before anybody could note that it had begun.
	return " " + unit.Duration(max(ran.Round(time.Millisecond), time.Millisecond)).String() + " after its start"
}

func restarts(n int) string {
	if n == 1 {
		return "1 restart"
	}
	return strconv.Itoa(n) + " restarts"
}

func within(p unit.RestartPolicy) string {
	if p.Interval <= 0 {
		return ""
	}
	return " within " + p.Interval.String()
}
