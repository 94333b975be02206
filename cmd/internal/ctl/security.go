package ctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// inspectSecurity prints what units open towards the host.
func (a *app) inspectSecurity(ctx context.Context, format term.Format, names []string) error {
	reports := make([]api.Security, 0, len(names))
	for _, name := range names {
		r, err := a.client().Security(ctx, name)
		if err != nil {
			return a.cannot("inspect", name, err)
		}
		reports = append(reports, r)
	}
	if !format.Table() {
		return term.PrintEach(a.out, format, reports)
	}
	for n, r := range reports {
		if n > 0 {
			if err := a.print("\n"); err != nil {
				return err
			}
		}
		if err := a.securityTable(r); err != nil {
			return err
		}
	}
	return nil
}

// securityStyle is a level's colour.
func securityStyle(level string) term.Style {
	switch level {
	case "closed", "ok":
		return term.Good
	case "exposed":
		return term.Busy
	}
	return term.Bad
}

func (a *app) securityTable(r api.Security) error {
	if len(r.Openings) > 0 {
		t := term.NewTable("WEIGHT", "KEY", "ALLOWS", "CLOSE BY")
		for _, o := range r.Openings {
			key := o.Key
			if o.Container != "" {
				key = o.Container + ": " + key
			}
			allows := o.Allows
			if o.Seen != "" {
				allows += " (" + o.Seen + ")"
			}
			t.Row(fmt.Sprintf("%.1f", o.Weight), key, allows, o.Close)
		}
		if err := t.Print(a.out); err != nil {
			return err
		}
	}
	for _, f := range r.Running {
		words := []string{fmt.Sprintf("uid %d", f.UID), "seccomp " + f.Seccomp, fmt.Sprintf("%d capabilities", len(f.Capabilities))}
		if f.UserNS {
			words = append(words, "a user namespace")
		} else {
			words = append(words, "no user namespace")
		}
		if f.NoNewPrivileges {
			words = append(words, "no new privileges")
		}
		for _, label := range []string{f.AppArmor, f.SELinux} {
			if label != "" {
				words = append(words, label)
			}
		}
		if err := a.print("%s runs with %s\n", f.Instance+"/"+f.Container, strings.Join(words, ", ")); err != nil {
			return err
		}
	}
	return a.print("%s: %.1f of 10, %s\n", r.Unit, r.Score, a.out.Paint(securityStyle(r.Level), r.Level))
}
