package ctl

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
)

// verbs is every command of `wherry ctl`, in the order of the help.
var verbs = []struct {
	group   string
	command func(*app) *cobra.Command
}{
	{groupIs, statusCommand},
	{groupIs, listCommand},
	{groupIs, psCommand},
	{groupIs, inspectCommand},
	{groupIs, logsCommand},
	{groupIs, eventsCommand},
	{groupIs, statsCommand},
	{groupIs, topCommand},
	{groupIs, doctorCommand},

	{groupChange, validateCommand},
	{groupChange, diffCommand},
	{groupChange, applyCommand},
	{groupChange, updateCommand},
	{groupChange, rmCommand},
	{groupChange, reloadCommand},

	{groupAct, startCommand},
	{groupAct, stopCommand},
	{groupAct, restartCommand},
	{groupAct, killCommand},
	{groupAct, pauseCommand},
	{groupAct, resumeCommand},
	{groupAct, waitCommand},
	{groupAct, shutdownCommand},
	{groupAct, runCommand},
	{groupAct, execCommand},
	{groupAct, attachCommand},
	{groupAct, cpCommand},
	{groupAct, debugCommand},

	{groupImages, imageCommand},
	{groupImages, imagesCommand},
	{groupImages, pullAlias},
	{groupImages, rmiAlias},
	{groupImages, loadAlias},
	{groupImages, saveAlias},
}

// The groups of the help.
const (
	groupIs     = "is"
	groupChange = "change"
	groupAct    = "act"
	groupImages = "images"
)

// DefaultSocket is where the daemon listens unless told otherwise.
const DefaultSocket = "/run/wherry/wherry.sock"

// Command is `wherry ctl`. look serves doctor where no daemon answers; it may be nil.
func Command(look Look) *cobra.Command {
	a := &app{
		look:   look,
		in:     os.Stdin,
		out:    term.Open(os.Stdout, os.Getenv),
		err:    term.Open(os.Stderr, os.Getenv),
		args:   os.Args,
		socket: os.Getenv("WHERRY_SOCKET"),
	}
	if a.socket == "" {
		a.socket = DefaultSocket
	}
	ctl := &cobra.Command{
		Use:   "ctl",
		Short: "Ask the daemon, or tell it what should run",
		Example: `  wherry ctl apply web.yaml        make web what the file says
  wherry ctl status                what runs, and why something does not
  wherry ctl logs -f web           its output as it comes
  wherry ctl run --rm nginx        a unit made of flags, in the foreground`,
		Long: `Names are a unit's name, the beginning of one, or a glob.

Exit codes: 0 done; 1 failed (diff: changes found); 2 usage or invalid unit;
3 not running; 4 no such unit; 5 daemon unreachable; 124 wait timed out;
exec and run: the command's own, 125 ours, 126 not executable, 127 not found,
128+n ended by signal n; 130 interrupted.`,
	}
	ctl.PersistentFlags().StringVar(&a.socket, "socket", a.socket, "the daemon's socket (or WHERRY_SOCKET)")
	ctl.AddGroup(
		&cobra.Group{ID: groupIs, Title: "What is:"},
		&cobra.Group{ID: groupChange, Title: "Change what should be:"},
		&cobra.Group{ID: groupAct, Title: "Act now:"},
		&cobra.Group{ID: groupImages, Title: "Images:"},
	)
	for _, v := range verbs {
		c := v.command(a)
		c.GroupID = v.group
		ctl.AddCommand(c)
	}
	return ctl
}
