package ctl

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cgroup"
	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func validateCommand(a *app) *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:   "validate FILE|FOLDER|-...",
		Short: "Check unit files, without a daemon",
		Example: `  wherry ctl validate web.yaml
  wherry ctl validate /etc/wherry/units`,
		Long: "Prints each mistake with file:line:column. Ends with 2 if there is one.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := a.readFiles(args)
			if err != nil {
				return err
			}
			var all []error
			byName := map[string]string{}
			var units []unit.Unit
			for _, f := range files {
				u, warnings, err := unit.Parse(f.Source, []byte(f.Text), unit.Options{
					ReadFile: func(name string) ([]byte, error) { return readBeside(f.Source, name) }})
				for _, w := range warnings {
					term.Warn(a.err, w.String())
				}
				switch other, twice := byName[u.Name]; {
				case err != nil:
					all = append(all, err)
					continue
				case twice:
					all = append(all, errors.New(f.Source+": unit "+u.Name+" stands in "+other+" too"))
					continue
				}
				byName[u.Name] = f.Source
				units = append(units, u)
				if err := a.checkHost(f.Source, u); err != nil {
					all = append(all, err)
					continue
				}
				if !quiet {
					if err := a.print("%s: unit %s is valid\n", f.Source, u.Name); err != nil {
						return err
					}
				}
			}
			for _, u := range units {
				for _, d := range u.DependsOn {
					if byName[d.Unit] == "" {
						term.Warn(a.err, fmt.Sprintf("%s: depends_on: unit %s is not among these files; apply fails unless it is there", byName[u.Name], d.Unit))
					}
				}
			}
			if len(all) > 0 {
				return &term.Failure{Code: term.ExitUsage, Err: errors.Join(all...)}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print mistakes only")
	return c
}

// checkHost holds a unit's limits against this host. That it has too few
// processors is a warning only: the file may be for another.
func (a *app) checkHost(source string, u unit.Unit) error {
	if _, err := cgroup.Detect(); err != nil {
		return nil // no Linux of ours: nothing is known
	}
	parent := cgroup.Parent{Path: "/wherry"}
	if service := (cgroup.Group{Path: "/wherry.slice/wherry-cargo.service"}); exists(service) { // as the package has it
		parent.Path = service.Path
	}
	for _, c := range u.Containers {
		err := parent.Check(c.Limits)
		switch {
		case errors.Is(err, cgroup.ErrBeyondHost):
			term.Warn(a.err, fmt.Sprintf("%s: unit %s: container %s: %v", source, u.Name, c.Name, err))
		case err != nil:
			return fmt.Errorf("%s: unit %s: container %s: %w", source, u.Name, c.Name, err)
		}
	}
	return nil
}

func exists(g cgroup.Group) bool {
	there, err := g.Exists()
	return err == nil && there
}
