package term

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Execute runs a tree of commands. What goes wrong before a command's own work
// begins (an unknown command or flag, too many arguments) is a usage error
// whose hint names the help to read.
func Execute(root *cobra.Command) error {
	working := false
	markWork(root, &working)
	c, err := root.ExecuteContextC(context.Background())
	var f *Failure
	switch {
	case err == nil || working || errors.As(err, &f):
		return err
	}
	// cobra's own suggestions span several lines; keep what is wrong.
	text, rest, _ := strings.Cut(err.Error(), "\n")
	hint := "see " + c.CommandPath() + " --help"
	if _, near, ok := strings.Cut(rest, "Did you mean this?"); ok {
		hint = "did you mean " + strings.Join(strings.Fields(near), " or ") + "? " + hint
	}
	return &Failure{Code: ExitUsage, Err: errors.New(text), Hint: hint}
}

// markWork notes the moment at which a command's own work begins.
func markWork(c *cobra.Command, working *bool) {
	if check := c.Args; check != nil && c.Runnable() {
		c.Args = counted(check)
	}
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			*working = true
			return run(c, args)
		}
	}
	if !c.Runnable() && c.HasSubCommands() {
		// Without this, an unknown verb of a group prints the help and ends with 0.
		c.Args = noSuchVerb
		c.RunE = groupHelp
	}
	for _, sub := range c.Commands() {
		markWork(sub, working)
	}
}

// counted checks the arguments and says how the command is called to who gave
// too few or too many. The exit code is the check's.
func counted(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		err := check(c, args)
		if err == nil {
			return nil
		}
		f := &Failure{Code: ExitUsage}
		errors.As(err, &f)
		text := "arguments are missing"
		for n := len(args) - 1; n >= 0; n-- {
			if check(c, args[:n]) == nil {
				text = fmt.Sprintf("%q is one argument too many", args[n])
				break
			}
		}
		return &Failure{Code: f.Code, Err: fmt.Errorf("%s: %s", text, c.UseLine()), Hint: "see " + c.CommandPath() + " --help"}
	}
}

// groupHelp is the help of a group, and with "help VERB" of one of its verbs.
func groupHelp(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		verb, rest, err := c.Find(args[1:])
		if err != nil || len(rest) > 0 {
			return &Failure{Code: ExitUsage, Err: fmt.Errorf("no help for %q", strings.Join(args[1:], " ")), Hint: "see " + c.CommandPath() + " --help"}
		}
		c = verb
	}
	return c.Help()
}

func noSuchVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 || args[0] == "help" {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	text := "unknown command \"" + args[0] + "\" for \"" + c.CommandPath() + "\""
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		text += "\n\nDid you mean this?\n" + strings.Join(near, "\n")
	}
	return errors.New(text)
}

// HelpTemplate leads with examples: they are what most people came for.
const HelpTemplate = `{{.Short}}.
{{if .HasExample}}
{{.Example}}
{{end}}{{with .Long}}
{{.}}
{{end}}
Usage: {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}{{if .Aliases}}
Also:  {{range $n, $a := .Aliases}}{{if $n}}, {{end}}{{$a}}{{end}}{{end}}
{{if .HasAvailableSubCommands}}{{$all := .Commands}}{{range $g := .Groups}}
{{.Title}}{{range $all}}{{if eq .GroupID $g.ID}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{if not .Groups}}
Commands:{{range $all}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
Global:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}`
