package unit

import (
	"errors"
	"io/fs"
	"strings"
)

// envFile is a file that env_file names.
type envFile struct {
	at       *node
	path     string
	required bool
}

// assignments reads a map of texts, or a list of NAME=value. missing is the
// hint for a name without a value.
func (p *reader) assignments(n *node, into map[string]string, missing func(name string) string) {
	switch n.shape {
	case mapping:
		for _, pr := range n.pairs {
			if pr.value.shape == null {
				p.fail(pr.name, pr.value.key, faultf(missing(pr.name.text), "%s: has no value", pr.value.key))
				continue
			}
			value, ok := p.text(pr.value)
			if err := checkVariable(pr.name.text); err != nil {
				p.fail(pr.name, n.key, err)
			} else if ok {
				into[pr.name.text] = value
			}
		}
	case list:
		for _, item := range n.items {
			p.assignment(item, into, missing)
		}
	default:
		p.badf(n, "", "wants a map or a list, not %s", n.kind())
	}
}

func (p *reader) assignment(item *node, into map[string]string, missing func(string) string) {
	text, ok := p.text(item)
	if !ok {
		return
	}
	name, value, found := strings.Cut(text, "=")
	err := checkVariable(name)
	switch {
	case err != nil:
		p.bad(item, err)
	case !found:
		p.badf(item, missing(name), "%q has no value", name)
	default:
		if _, twice := into[name]; twice {
			p.warnf(item, "%s is set twice, the last one counts", name)
		}
		into[name] = value
	}
}

// passHint explains what Compose would have done.
func passHint(name string) string {
	return "write " + name + "=value; nothing is passed on from the daemon's own environment"
}

// labelHint says how a label is written.
func labelHint(name string) string { return "write " + name + "=value" }

// checkVariable tells what is wrong with the name of a variable or label.
func checkVariable(name string) error {
	if name == "" || strings.ContainsAny(name, "= \t\r\n\x00") {
		return faultf("", "%q is not a name", name)
	}
	return nil
}

// envFileTable is the long form of an env_file.
var envFileTable = table[envFile]{fields: []field[envFile]{
	known("path", "path", "", "The file, relative to the unit file.", func(p *reader, n *node, to *envFile) {
		to.path, _ = p.word(n)
	}),
	known("required", "boolean", "true", "Whether it must be there.", func(p *reader, n *node, to *envFile) {
		p.flag(n, &to.required)
	}),
	later[envFile]("format", "word", "Another syntax of the file."),
}}

func (p *reader) setEnvFile(n *node, d *draft) {
	items := []*node{n}
	if n.shape == list {
		items = n.items
	}
	for _, item := range items {
		f := envFile{at: item, required: true}
		before := len(p.errs)
		if item.shape == mapping {
			envFileTable.fill(p, item, &f)
		} else {
			f.path, _ = p.word(item)
		}
		if len(p.errs) > before {
			continue
		}
		if f.path == "" {
			p.badf(item, "", "path is missing")
			continue
		}
		d.envFiles = append(d.envFiles, f)
	}
}

// environment reads the env files and lays `environment` over them.
func (p *reader) environment(d *draft) {
	env := map[string]string{}
	for _, f := range d.envFiles {
		p.envFile(f, env)
	}
	for name, value := range d.env {
		env[name] = value
	}
	if len(env) > 0 {
		d.app.Environment = env
	}
}

func (p *reader) envFile(f envFile, env map[string]string) {
	if p.o.ReadFile == nil {
		p.badf(f.at, "", "%s: files cannot be read here", f.path)
		return
	}
	data, err := p.o.ReadFile(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !f.required:
		return
	case errors.Is(err, fs.ErrNotExist):
		p.badf(f.at, "write {path: "+f.path+", required: false} if it may be missing", "%s: there is no such file", f.path)
		return
	case err != nil:
		p.badf(f.at, "", "%s: %s", f.path, err)
		return
	}
	got, errs, warns := parseEnvFile(f.path, data)
	p.errs = append(p.errs, errs...)
	p.warns = append(p.warns, warns...)
	for name, value := range got {
		env[name] = value
	}
}

// parseEnvFile reads Docker's env file format: NAME=value lines, the value as it
// stands with its quotes, # for comments at the beginning of a line.
func parseEnvFile(file string, data []byte) (map[string]string, Errors, []Warning) {
	env := map[string]string{}
	var errs Errors
	var warns []Warning
	number := 0
	for line := range strings.SplitSeq(strings.TrimPrefix(string(data), "\ufeff"), "\n") {
		number++
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		bad := func(message, hint string) {
			errs = append(errs, &Error{File: file, Line: number, Column: 1, Key: "env_file", Message: message, Hint: hint})
		}
		switch err := checkVariable(name); {
		case err != nil:
			bad(err.Error(), "lines are like NAME=value")
		case !found:
			bad(name+" has no value", passHint(name))
		case strings.ContainsRune(value, 0):
			bad(name+" holds a zero byte", "")
		default:
			env[name] = value
			if q := value; len(q) > 1 && q[0] == q[len(q)-1] && (q[0] == '"' || q[0] == '\'') {
				warns = append(warns, Warning{File: file, Line: number, Column: 1, Key: "env_file",
					Message: "the quotes are part of the value of " + name + ", as with docker run --env-file"})
			}
		}
	}
	return env, errs, warns
}
