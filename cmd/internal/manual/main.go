// Command manual writes the manual pages and the shells' completions of wherry.
// They are made of the tables that the program itself reads: its commands, the
// keys of wherry.yaml and those of a unit file.
//
//	go run ./cmd/internal/manual [-version V] [-date 2026-11-22] DIR
//
// It fills DIR/man1, DIR/man5 and DIR/completions.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/root"
)

func main() {
	version := flag.String("version", "devel", "what the pages are about")
	date := flag.String("date", "", "their date")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: manual [-version V] [-date DATE] DIR")
		os.Exit(2)
	}
	// Flags' defaults are those of a plain environment.
	os.Unsetenv("WHERRY_SOCKET")
	if err := write(flag.Arg(0), book{version: *version, date: *date}); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// write makes every file below dir.
func write(dir string, b book) error {
	files, err := completions(root.New(b.version))
	if err != nil {
		return err
	}
	for name, text := range b.pages() {
		section := filepath.Ext(name)[1:]
		files[filepath.Join("man"+section, name)] = text
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
		if err != nil {
			return err
		}
	}
	return nil
}

// completions are the shells' files under the names that the shells look for.
func completions(c *cobra.Command) (map[string]string, error) {
	files := map[string]string{}
	for name, generate := range map[string]func(*bytes.Buffer) error{
		"wherry":      func(b *bytes.Buffer) error { return c.GenBashCompletionV2(b, true) },
		"_wherry":     func(b *bytes.Buffer) error { return c.GenZshCompletion(b) },
		"wherry.fish": func(b *bytes.Buffer) error { return c.GenFishCompletion(b, true) },
	} {
		var b bytes.Buffer
		if err := generate(&b); err != nil {
			return nil, fmt.Errorf("completion %s: %w", name, err)
		}
		files[filepath.Join("completions", name)] = b.String()
	}
	return files, nil
}
