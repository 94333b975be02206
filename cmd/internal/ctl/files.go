package ctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// readFiles reads unit files, folders of them, and - for stdin, with the files
// that they refer to.
func (a *app) readFiles(args []string) ([]api.File, error) {
	var files []api.File
	for _, arg := range args {
		if arg == "-" {
			f, err := a.readStdin()
			if err != nil {
				return nil, err
			}
			files = append(files, f)
			continue
		}
		paths, err := unitFiles(arg)
		if err != nil {
			return nil, &term.Failure{Code: term.ExitUsage, Err: err}
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				return nil, &term.Failure{Code: term.ExitUsage, Err: unreadable(p, err)}
			}
			files = append(files, withReferences(p, b))
		}
	}
	return files, nil
}

// unitFiles is the file itself, or the unit files of a folder by name.
func unitFiles(path string) ([]string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if !e.IsDir() && (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no unit file (*.yaml) in it", path)
	}
	return slices.Sorted(slices.Values(files)), nil
}

// unreadable leaves the system call out of an error of a file.
func unreadable(path string, err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		err = of.Err
	}
	return fmt.Errorf("cannot read %s: %w", path, err)
}

// readStdin is a unit file from stdin. Its paths start from our folder.
func (a *app) readStdin() (api.File, error) {
	b, err := io.ReadAll(a.in)
	if err != nil {
		return api.File{}, fmt.Errorf("read stdin: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return api.File{}, err
	}
	f := withReferences("-", b)
	f.Dir = dir
	return f, nil
}

// withReferences finds the env files by parsing; what is wrong with the file is
// the daemon's to say.
func withReferences(path string, text []byte) api.File {
	f := api.File{Source: path, Text: string(text)}
	_, _, _ = unit.Parse(path, text, unit.Options{ReadFile: func(name string) ([]byte, error) {
		b, err := readBeside(path, name)
		if err == nil {
			if f.Files == nil {
				f.Files = map[string]string{}
			}
			f.Files[name] = string(b)
		}
		return b, err
	}})
	return f
}

// mostReference bounds a file that a unit refers to.
const mostReference = 4 << 20

// readBeside reads a file that a unit file names.
func readBeside(path, name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(path), name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostReference+1))
	if err == nil && len(b) > mostReference {
		err = errors.New("larger than 4 MiB")
	}
	return b, err
}
