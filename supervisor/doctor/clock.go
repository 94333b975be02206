package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"
)

// checkClock holds the clock against what was written when it was right: a clock
// that is years off at boot makes every TLS certificate invalid.
func checkClock(_ context.Context, e *exam) finding {
	now := e.h.now()
	latest, what := e.h.built, "wherry was built"
	for _, f := range []struct{ path, what string }{
		{filepath.Join(e.o.Root, "state.db"), "wherry's state was written"},
		{"/var/lib/systemd/timesync/clock", "the clock was last synchronized"}, // systemd-timesyncd(8)
		{"/var/lib/chrony/drift", "the clock was last synchronized"},
		{"/usr/lib/clock-epoch", "systemd was built"},
		{"/usr/lib/os-release", "the system was made"},
	} {
		if at := e.h.modTime(f.path); at.After(latest) {
			latest, what = at, f.what
		}
	}
	text := now.Format("2006-01-02 15:04:05 MST")
	switch {
	case now.Before(latest.Add(-time.Hour)):
		return failed(fmt.Sprintf("it is %s here, but %s at %s: certificates seem not valid yet, pulls fail", text, what, latest.Format("2006-01-02 15:04")), e.setClock())
	case now.After(latest.AddDate(15, 0, 0)) && !latest.IsZero():
		return failed(fmt.Sprintf("it is %s here, and nothing on this host is younger than %s: certificates seem to have expired", text, latest.Format("2006-01-02")), e.setClock())
	}
	return fine(text)
}

// built is when this program was, as far as it knows.
func built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			at, _ := time.Parse(time.RFC3339, s.Value)
			return at
		}
	}
	return time.Time{}
}

func (e *exam) setClock() string {
	return "date -s '2026-01-31 12:00' (the right time), hwclock -w; then " + e.synchronize()
}

func (e *exam) synchronize() string {
	switch {
	case e.h.exists("/usr/lib/systemd/system/chrony.service"):
		return "systemctl enable --now chrony && chronyc makestep"
	case e.h.exists("/usr/lib/systemd/system/chronyd.service"):
		return "systemctl enable --now chronyd && chronyc makestep"
	case e.h.exists("/usr/lib/systemd/system/systemd-timesyncd.service"):
		return "timedatectl set-ntp true"
	}
	return e.h.choose("apt install systemd-timesyncd && timedatectl set-ntp true", "dnf install chrony && systemctl enable --now chronyd")
}

func checkSync(_ context.Context, e *exam) finding {
	c, err := e.p.clock()
	switch {
	case err != nil:
		return skip(err.Error())
	case !c.synced:
		return warning("nothing keeps the clock right: tokens of ECR and signatures need it within 5 minutes", e.synchronize())
	}
	return fine(fmt.Sprintf("synchronized, within %v", (time.Duration(c.error) * time.Microsecond).Round(time.Microsecond)))
}
