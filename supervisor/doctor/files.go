package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func checkConfig(_ context.Context, e *exam) finding {
	switch {
	case e.o.ConfigErr != nil:
		return failed(oneLine(e.o.ConfigErr), "mend "+e.o.Config+", then: wherry ctl reload")
	case !e.h.exists(e.o.Config):
		return fine("no " + e.o.Config + ": all defaults")
	}
	if err := e.o.Images.Check(); err != nil {
		return failed(oneLine(err), "mend registries in "+e.o.Config+", then: wherry ctl reload")
	}
	return fine(e.o.Config + " is valid")
}

// checkUnits reads the unit files as the daemon does, and holds their limits
// against this host.
func checkUnits(ctx context.Context, e *exam) finding {
	if e.o.Units == "" {
		return skip("no folder of units is watched")
	}
	units, bad, err := e.units(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fine("no folder " + e.o.Units + " yet")
	case err != nil:
		return failed(oneLine(err), "chmod and chown: root must be able to read "+e.o.Units)
	}
	for _, u := range units {
		for _, c := range u.Containers {
			err := e.p.limits(c.Limits)
			if err != nil && !errors.Is(err, cgroup.ErrBeyondHost) {
				bad = append(bad, fmt.Sprintf("unit %s: %v", u.Name, err))
			}
		}
	}
	if len(bad) > 0 {
		return failed(strings.Join(bad, "; "), "wherry ctl validate "+e.o.Units+" shows each; a unit keeps its last good revision meanwhile")
	}
	return fine(fmt.Sprintf("%d in %s, all valid", len(units), e.o.Units))
}

// units of the folder that are valid, and what is wrong with the others.
func (e *exam) units(ctx context.Context) (units []unit.Unit, bad []string, err error) {
	entries, err := os.ReadDir(e.h.path(e.o.Units))
	if err != nil {
		return nil, nil, err
	}
	for _, entry := range entries {
		ext := filepath.Ext(entry.Name())
		if entry.IsDir() || strings.HasPrefix(entry.Name(), ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		if ctx.Err() != nil {
			return units, bad, ctx.Err()
		}
		path := filepath.Join(e.o.Units, entry.Name())
		text, err := os.ReadFile(e.h.path(path))
		if err != nil {
			bad = append(bad, oneLine(err))
			continue
		}
		u, _, err := unit.Parse(path, text, unit.Options{Dir: e.o.Units, ReadFile: func(name string) ([]byte, error) {
			if !filepath.IsAbs(name) {
				name = filepath.Join(e.o.Units, name)
			}
			return os.ReadFile(e.h.path(name))
		}})
		if err != nil {
			bad = append(bad, oneLine(err))
			continue
		}
		units = append(units, u)
	}
	return units, bad, nil
}

// oneLine is an error that may have several.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
