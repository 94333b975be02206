package ctl

import (
	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
)

func inspectCommand(a *app) *cobra.Command {
	var text string
	var security bool
	c := &cobra.Command{
		Use:   "inspect UNIT|INSTANCE...",
		Short: "Everything about units, as JSON or through a template",
		Example: `  wherry ctl inspect web
  wherry ctl inspect --security web
  wherry ctl inspect -f '{{.State.ExitCode}}' migrate
  wherry ctl inspect -f '{{.State.Pid}} {{.NetworkSettings.IPAddress}}' web.2`,
		Long: `Without -f the API's own types, a list, with the last ends of the containers:
raw wait status, memory, pressure, the last kill for lack of memory with the
tasks of that moment, and the last 200 lines of output. A template sees a Docker-shaped view:
Id Name Created Image RestartCount LogPath State Config HostConfig Mounts
NetworkSettings, and of ours Intent Reason Revision Replicas Active Definition
Revisions Instances. An exit that nobody could see has the code 255.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(c *cobra.Command, args []string) error {
			format, err := term.ParseFormat(text)
			if err != nil {
				return &term.Failure{Code: term.ExitUsage, Err: err}
			}
			if security {
				if !c.Flags().Changed("format") {
					format = term.Format{}
				}
				return a.inspectSecurity(c.Context(), format, args)
			}
			details := make([]inspection, 0, len(args))
			for _, name := range args {
				d, err := a.client().Unit(c.Context(), name)
				if err != nil {
					return a.cannot("inspect", name, err)
				}
				details = append(details, inspection{d, a.exits(c.Context(), name)})
			}
			if format.Table() || format.JSON {
				return term.PrintJSON(a.out, details)
			}
			for n, d := range details {
				if err := format.Print(a.out, newInspectView(d.UnitDetail, args[n])); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&security, "security", false, "what it opens towards the host, how to close it, and a score from 0 (closed) to 10")
	c.Flags().StringVarP(&text, "format", "f", "json", "json, or a template for each unit")
	return c
}
