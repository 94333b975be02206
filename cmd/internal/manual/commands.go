package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wherry-run/wherry/cmd/internal/root"
)

// book is what all pages share.
type book struct{ version, date string }

// pages are all of them, by file name.
func (b book) pages() map[string]string {
	all := map[string]string{
		"wherry.yaml.5": b.configuration(),
		"wherry-unit.5": b.unit(),
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		all[title(c)+".1"] = b.command(c)
		for _, sub := range c.Commands() {
			if documented(sub) {
				walk(sub)
			}
		}
	}
	walk(root.New(b.version))
	return all
}

func documented(c *cobra.Command) bool {
	return c.IsAvailableCommand() && c.Name() != "completion" && c.Name() != "help"
}

func title(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// command is the page of one command. It leads with examples, as the help does.
func (b book) command(c *cobra.Command) string {
	p := &page{}
	p.header(b, title(c), "1", c.Short)
	p.section("SYNOPSIS")
	p.b.WriteString(synopsis(c) + "\n")
	if c.HasExample() {
		p.section("EXAMPLES")
		p.example(c.Example)
	}
	p.section("DESCRIPTION")
	p.text(c.Short + ".\n\n" + c.Long)
	if len(c.Aliases) > 0 {
		p.text("Also: " + strings.Join(c.Aliases, ", ") + ".")
	}
	commands(p, c)
	flags(p, "OPTIONS", c.LocalFlags())
	flags(p, "GLOBAL OPTIONS", c.InheritedFlags())
	if !c.HasParent() {
		files(p)
	}
	p.seeAlso(related(c))
	return p.String()
}

func synopsis(c *cobra.Command) string {
	if c.HasAvailableSubCommands() {
		return bold(c.CommandPath()) + " " + italic("COMMAND")
	}
	rest := strings.TrimSpace(strings.TrimPrefix(c.UseLine(), c.CommandPath()))
	return strings.TrimSpace(bold(c.CommandPath()) + " " + escape(rest))
}

func commands(p *page, c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	p.section("COMMANDS")
	list := func(id string) {
		for _, sub := range c.Commands() {
			if sub.GroupID == id && documented(sub) {
				p.item(bold(sub.Name()), sub.Short+".")
			}
		}
	}
	for _, g := range c.Groups() {
		p.subsection(g.Title)
		list(g.ID)
	}
	if len(c.Groups()) == 0 {
		list("")
	}
}

func flags(p *page, title string, set *pflag.FlagSet) {
	first := true
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if first {
			p.section(title)
			first = false
		}
		value, usage := pflag.UnquoteUsage(f)
		term := bold("--" + f.Name)
		if f.Shorthand != "" {
			term = bold("-"+f.Shorthand) + ", " + term
		}
		if value != "" {
			term += " " + italic(value)
		}
		if !plainDefault(f) {
			usage += " (default: " + f.DefValue + ")"
		}
		p.item(term, usage)
	})
}

// plainDefault tells a default that says nothing.
func plainDefault(f *pflag.Flag) bool {
	switch f.DefValue {
	case "", "false", "0", "0s", "[]", "<nil>":
		return true
	}
	return false
}

func files(p *page) {
	p.section("FILES")
	for _, f := range [][2]string{
		{"/etc/wherry/wherry.yaml", "Configuration of the daemon; see wherry.yaml(5)."},
		{"/etc/wherry/units/", "Unit files that are applied as they come and change; see wherry-unit(5)."},
		{"/run/wherry/wherry.sock", "The API's socket. Members of the group wherry may read, root may do all."},
		{"/var/lib/wherry/", "Images, layers, volumes, logs, and what should run."},
		{"/usr/lib/wherry/wherry-keeper", "The parent of the containers, which outlives the daemon."},
	} {
		p.item(italic(f[0]), f[1])
	}
}

// related are the pages of the commands above, below and beside.
func related(c *cobra.Command) []string {
	var all []string
	if c.HasParent() {
		all = append(all, title(c.Parent())+"(1)")
	}
	for _, sub := range c.Commands() {
		if documented(sub) {
			all = append(all, title(sub)+"(1)")
		}
	}
	return append(all, "wherry-unit(5)", "wherry.yaml(5)")
}
