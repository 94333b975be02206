package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp compares every command's help with testdata/help; -update writes it.
func TestHelp(t *testing.T) {
	t.Setenv("WHERRY_SOCKET", "")
	root := newRoot()
	seen := map[string]bool{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		file := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".txt"
		seen[file] = true
		checkHelp(t, c, filepath.Join("testdata", "help", file))
		for _, sub := range c.Commands() {
			if sub.Name() != "help" && sub.Name() != "completion" {
				walk(sub)
			}
		}
	}
	walk(root)
	entries, err := os.ReadDir("testdata/help")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !seen[e.Name()] {
			t.Errorf("testdata/help/%s belongs to no command", e.Name())
		}
	}
}

func checkHelp(t *testing.T, c *cobra.Command, file string) {
	t.Helper()
	if c.Example == "" || c.Short == "" {
		t.Errorf("%s: help leads with examples", c.CommandPath())
	}
	var b bytes.Buffer
	c.SetOut(&b)
	if err := c.Help(); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
	} else if b.String() != string(want) {
		t.Errorf("%s: help differs from %s (run with -update if that is meant):\n%s", c.CommandPath(), file, b.String())
	}
}
