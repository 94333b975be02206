package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// licencesOf reads the licence files of a module in the cache of the go command, which has built the program from them.
func licencesOf(m *debug.Module) ([]string, error) {
	cache, err := moduleCache()
	if err != nil {
		return nil, err
	}
	// A module's code may lie below its repository's top, with the licence of the whole copied into its zip.
	dir := filepath.Join(cache, escape(m.Path)+"@"+escape(m.Version))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if !licenceFile.MatchString(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		ids = append(ids, recognise(string(text))...)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("module %s: no licence is recognised in %s", m.Path, dir)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-._].*)?$`)

var moduleCache = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	return strings.TrimSpace(string(out)), err
})

// escape writes a module's path or version as the cache does, for file systems that ignore case: "!a" for "A".
func escape(path string) string {
	var b strings.Builder
	for _, r := range path {
		if unicode.IsUpper(r) {
			b.WriteByte('!')
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// phrases tell licences apart, by words that each of them must have and others have not.
var phrases = []struct {
	id        string
	has, lack []string
}{
	{"Apache-2.0", []string{"apache license", "version 2.0, january 2004"}, nil},
	{"Apache-2.0", []string{"licensed under the apache license, version 2.0"}, []string{"version 2.0, january 2004"}},
	{"MIT", []string{"permission is hereby granted, free of charge, to any person obtaining a copy", "the above copyright notice and this permission notice"}, nil},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "nor the names of"}, nil},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "nor the name of"}, nil},
	{"BSD-2-Clause", []string{"redistribution and use in source and binary forms"}, []string{"nor the name", "names of its contributors"}},
	{"ISC", []string{"permission to use, copy, modify, and distribute this software for any purpose with or without fee"}, nil},
	{"ISC", []string{"permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"}, nil},
	{"MPL-2.0", []string{"mozilla public license", "version 2.0"}, []string{"apache license"}},
	{"LGPL-2.1-only", []string{"gnu lesser general public license", "version 2.1"}, []string{"mozilla public license"}},
	{"Unlicense", []string{"this is free and unencumbered software released into the public domain"}, nil},
}

var space = regexp.MustCompile(`[\s*#/]+`)

// recognise gives the SPDX identifiers of the licences that a text has.
func recognise(text string) (ids []string) {
	text = space.ReplaceAllString(strings.ToLower(text), " ")
	in := func(phrase string) bool { return strings.Contains(text, space.ReplaceAllString(phrase, " ")) }
	for _, p := range phrases {
		if !slices.Contains(ids, p.id) && !slices.ContainsFunc(p.has, func(w string) bool { return !in(w) }) && !slices.ContainsFunc(p.lack, in) {
			ids = append(ids, p.id)
		}
	}
	return ids
}
