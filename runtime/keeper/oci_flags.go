package keeper

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// ociCommand is one command of the OCI runtime.
type ociCommand struct {
	name  string
	args  string // what stands behind the flags
	about string
	run   func(o *oci, args []string) error
}

// ociCommands is a function, not a variable: the keeper's start-up pays
// for no command line.
func ociCommands() []ociCommand {
	return []ociCommand{
		{"create", "ID", "make a container that waits for start", (*oci).create},
		{"delete", "ID", "remove an ended container", (*oci).delete},
		{"events", "ID", "show use of resources, and kills for lack of memory", (*oci).events},
		{"exec", "ID COMMAND [ARG...]", "run a further process in a container", (*oci).exec},
		{"features", "", "show what this runtime can do", (*oci).features},
		{"kill", "ID [SIGNAL]", "send a signal, SIGTERM if none is given", (*oci).kill},
		{"list", "", "list the containers below --root", (*oci).list},
		{"pause", "ID", "freeze a container's processes", (*oci).pause},
		{"ps", "ID [PS OPTION...]", "list a container's processes", (*oci).ps},
		{"resume", "ID", "let them go on", (*oci).resume},
		{"run", "ID", "make and start a container", (*oci).runCommand},
		{"spec", "", "write a config.json to begin with", (*oci).spec},
		{"start", "ID", "let a made container's program begin", (*oci).start},
		{"state", "ID", "show a container's state", (*oci).state},
		{"update", "ID", "change limits", (*oci).update},
	}
}

func findOCICommand(name string) *ociCommand {
	for _, c := range ociCommands() {
		if c.name == name {
			return &c
		}
	}
	return nil
}

func newOCIFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// ociAlias defines a flag under several names.
func ociAlias[T bool | string](fs *flag.FlagSet, p *T, about string, names ...string) {
	for _, name := range names {
		switch p := any(p).(type) {
		case *bool:
			fs.BoolVar(p, name, *p, about)
		case *string:
			fs.StringVar(p, name, *p, about)
		}
	}
}

// ociList defines a flag that may be given several times, under several names.
func ociList(fs *flag.FlagSet, p *[]string, about string, names ...string) {
	for _, name := range names {
		fs.Func(name, about, func(s string) error {
			*p = append(*p, s)
			return nil
		})
	}
}

// ociParse reads a command's flags and arguments, of which there are between
// min and max (-1: any number). Flags may stand behind arguments too, as runc allows, unless the
// arguments are somebody else's command line.
func ociParse(fs *flag.FlagSet, args []string, foreign bool, min, max int) ([]string, error) {
	var words []string
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			return nil, ociHelp(nil, []string{"help", fs.Name()})
		}
		if err != nil {
			return nil, fmt.Errorf("%w of %s: %w", errUsage, fs.Name(), err)
		}
		rest := fs.Args()
		ended := len(rest) < len(args) && args[len(args)-len(rest)-1] == "--"
		if foreign || ended || len(rest) == 0 {
			words = append(words, rest...)
			break
		}
		words, args = append(words, rest[0]), rest[1:]
	}
	if len(words) < min || max >= 0 && len(words) > max {
		return nil, fmt.Errorf("%w of %s: wanted %s", errUsage, fs.Name(), strings.TrimSpace(fs.Name()+" "+findOCICommand(fs.Name()).args))
	}
	return words, nil
}

// ociHelp prints the global usage, or that of a command.
func ociHelp(fs *flag.FlagSet, args []string) error {
	w := os.Stdout
	if len(args) > 1 {
		c := findOCICommand(args[1])
		if c == nil {
			return fmt.Errorf("%w: no command %q", errUsage, args[1])
		}
		fmt.Fprintf(w, "usage: wherry-oci [GLOBAL FLAG...] %s [FLAG...] %s\n%s\n", c.name, c.args, c.about)
		return &ociExit{}
	}
	fmt.Fprint(w, "usage: wherry-oci [FLAG...] COMMAND [FLAG...] [ARG...]\n\nAn OCI runtime with the command line of runc.\n\ncommands:\n")
	for _, c := range ociCommands() {
		fmt.Fprintf(w, "  %-9s %-20s %s\n", c.name, c.args, c.about)
	}
	if fs != nil {
		fmt.Fprint(w, "\nflags:\n")
		fs.VisitAll(func(f *flag.Flag) { fmt.Fprintf(w, "  --%-15s %s\n", f.Name, f.Usage) })
	}
	return &ociExit{}
}
