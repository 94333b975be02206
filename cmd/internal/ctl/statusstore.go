package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// operations are the pulls under way. A daemon that cannot tell, because it is
// an older one, keeps nobody from seeing the rest.
func (a *app) operations(ctx context.Context) []api.Operation {
	list, err := a.client().Operations(ctx)
	if err != nil {
		return nil
	}
	return list
}

// storeStatus is what the status says of images: the disk, the registries, and
// the pulls that people have asked for.
func (a *app) storeStatus(info api.Info, operations []api.Operation, now time.Time) error {
	if info.Disk != nil {
		text := diskText(*info.Disk)
		if info.Disk.Pressure != "" {
			text = a.out.Paint(term.Bad, text)
		}
		if g := info.LastGC; g != nil {
			text += fmt.Sprintf("; last gc %s: %d %s, %s freed", a.out.Since(g.At, now), g.Images, plural(g.Images, "image", "images"), term.Size(g.Freed))
		}
		if err := a.print("%s\n", text); err != nil {
			return err
		}
	}
	for _, r := range info.Registries {
		if text := a.limitText(r, now); text != "" {
			if err := a.print("%s: %s\n", term.Clean(r.Registry), text); err != nil {
				return err
			}
		}
	}
	for _, o := range operations {
		if o.Unit != "" {
			continue // stands with its instance
		}
		if err := a.print("%s: pull %s, %s\n", o.ID, term.Clean(o.Object), operationText(o)); err != nil {
			return err
		}
	}
	return a.print("\n")
}

// limitText is what a registry lets us do, empty if it has not said.
func (a *app) limitText(r api.RateLimit, now time.Time) string {
	var text string
	if r.Limit > 0 {
		text = fmt.Sprintf("%d of %d pulls left", max(r.Remaining, 0), r.Limit)
		if r.Window > 0 {
			text += " (" + term.Short(r.Window) + ")"
		}
		if r.Remaining <= 0 {
			text = a.out.Paint(term.Bad, text)
		}
	}
	if r.Until.After(now) {
		until := r.Until.Format(time.RFC3339)
		if a.out.People() {
			until = r.Until.Format(time.TimeOnly)
		}
		text = join("; ", text, a.out.Paint(term.Busy, "wants no requests until "+until))
	}
	return text
}

// pullNote is how far the pull that an instance's start needs is.
func pullNote(operations []api.Operation, instance string) string {
	for _, o := range operations {
		if o.Instance == instance {
			return "pull " + o.Object + ": " + operationText(o)
		}
	}
	return ""
}

// operationText is how far an operation is.
func operationText(o api.Operation) string {
	if o.Total == 0 {
		if o.Step == "" {
			return "begun"
		}
		return o.Step
	}
	text := fmt.Sprintf("%s of %s", term.Size(o.Done), term.Size(o.Total))
	if o.Rate > 0 {
		text += ", " + term.Size(o.Rate) + "/s"
	}
	if o.Left > 0 {
		text += ", " + term.Short(o.Left+time.Second-1) + " left"
	}
	return text
}

// diskWait bounds how long the status of a unit waits for what it takes on disk.
const diskWait = 2 * time.Second

// usage is what the units take on disk, by unit; none if it takes too long to
// find out.
func (a *app) usage(ctx context.Context) map[string]api.UnitUsage {
	limited, cancel := context.WithTimeout(ctx, diskWait)
	defer cancel()
	u, err := a.client().DiskUsage(limited)
	if err != nil {
		return nil
	}
	units := map[string]api.UnitUsage{}
	for _, x := range u.Units {
		units[x.Unit] = x
	}
	return units
}

// usageText is what a unit takes on disk.
func usageText(u api.UnitUsage) string {
	text := fmt.Sprintf("%s written", term.Size(u.Writable))
	for _, p := range []struct {
		name string
		n    int64
	}{{"anonymous volumes", u.Volumes}, {"logs", u.Logs}, {"image", u.ImageSize}} {
		if p.n > 0 {
			text += ", " + p.name + " " + term.Size(p.n)
		}
	}
	return text
}
