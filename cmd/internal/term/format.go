package term

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
)

// Format is what --format asks for: a table (the zero value), JSON, or a
// template that is applied to each item.
type Format struct {
	JSON     bool
	template *template.Template
	columns  bool // "table {{.A}}\t{{.B}}": tabs become aligned columns
}

// ParseFormat reads --format. A malformed template is an error.
func ParseFormat(s string) (Format, error) {
	switch s {
	case "", "table":
		return Format{}, nil
	case "json":
		return Format{JSON: true}, nil
	}
	text, columns := strings.CutPrefix(s, "table ")
	if !strings.Contains(text, "{{") {
		return Format{}, fmt.Errorf("format %q: want table, json or a template such as '{{.Name}}'", s)
	}
	// Hands write '\t' inside single quotes, where the shell leaves it alone.
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("format").Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return Format{}, fmt.Errorf("format: %w", err)
	}
	return Format{template: t, columns: columns}, nil
}

// functions of templates, as Docker has them.
var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	},
	"join":  func(v []string, sep string) string { return strings.Join(v, sep) },
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
}

// Table reports whether the verb's own table is asked for.
func (f Format) Table() bool { return !f.JSON && f.template == nil }

// Print writes v as JSON, or a template's result for it. What a template
// prints is data and goes out as it is.
func (f Format) Print(s Stream, v any) error {
	if f.template == nil {
		return PrintJSON(s, v)
	}
	var b bytes.Buffer
	if err := f.template.Execute(&b, v); err != nil {
		return &Failure{Code: ExitUsage, Err: fmt.Errorf("format: %w", err)}
	}
	b.WriteByte('\n')
	_, err := s.Write(b.Bytes())
	return err
}

// PrintEach applies the format to each item; as JSON, to the list as a whole.
func PrintEach[T any](s Stream, f Format, items []T) error {
	if f.template == nil {
		return f.Print(s, items)
	}
	if !f.columns {
		for _, v := range items {
			if err := f.Print(s, v); err != nil {
				return err
			}
		}
		return nil
	}
	t := NewTable()
	for _, v := range items {
		var b strings.Builder
		if err := f.template.Execute(&b, v); err != nil {
			return &Failure{Code: ExitUsage, Err: fmt.Errorf("format: %w", err)}
		}
		t.Row(strings.Split(b.String(), "\t")...)
	}
	return t.Print(s)
}

// PrintJSON writes v indented.
func PrintJSON(s Stream, v any) error {
	e := json.NewEncoder(s)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// PrintJSONLine writes v as one line of a stream.
func PrintJSONLine(s Stream, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.Write(append(b, '\n'))
	return err
}
