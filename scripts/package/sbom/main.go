// Command sbom writes a bill of materials (CycloneDX 1.5, JSON) of programs
// written in Go: exactly the modules that the linker put into them, with the
// checksums of go.sum and the licences that stand in them, plus C libraries that
// are linked statically. A licence that is not recognised is an error.
//
//	go run ./scripts/package/sbom -version V -time SECONDS -c NAME=VERSION,... PROGRAM...
package main

import (
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"crypto/sha256"
)

// The parts of the format that are used.
type (
	document struct {
		Schema       string       `json:"$schema"`
		Format       string       `json:"bomFormat"`
		Spec         string       `json:"specVersion"`
		Serial       string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Ref     string `json:"bom-ref"`
		Type    string `json:"type"`
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
		PURL    string `json:"purl,omitempty"`
		Hashes  []hash `json:"hashes,omitempty"`

		Licences []licence `json:"licenses,omitempty"`
	}
	licence struct {
		Licence struct {
			ID string `json:"id"` // SPDX's
		} `json:"license"`
	}
	hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

func main() {
	version := flag.String("version", "", "version of the programs")
	seconds := flag.Int64("time", 0, "time of the document")
	libraries := flag.String("c", "", "C libraries in programs with cgo, Debian's NAME=VERSION,...")
	flag.Parse()
	doc, err := describe(*version, time.Unix(*seconds, 0).UTC(), *libraries, flag.Args())
	if err == nil {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(doc)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func describe(version string, at time.Time, libraries string, programs []string) (document, error) {
	top := component{Ref: "wherry", Type: "application", Name: "wherry", Version: version, Licences: named("Apache-2.0")}
	doc := document{Schema: "http://cyclonedx.org/schema/bom-1.5.schema.json", Format: "CycloneDX", Spec: "1.5", Version: 1,
		Metadata: metadata{Timestamp: at.Format(time.RFC3339), Component: top}}
	all := map[string]component{}
	whole := dependency{Ref: top.Ref}
	for _, path := range programs {
		program, parts, err := read(path, version, libraries)
		if err != nil {
			return doc, fmt.Errorf("%s: %w", path, err)
		}
		all[program.Ref] = program
		whole.DependsOn = append(whole.DependsOn, program.Ref)
		of := dependency{Ref: program.Ref}
		for _, c := range parts {
			all[c.Ref] = c
			of.DependsOn = append(of.DependsOn, c.Ref)
		}
		doc.Dependencies = append(doc.Dependencies, of)
	}
	doc.Dependencies = append([]dependency{whole}, doc.Dependencies...)
	for _, c := range all {
		doc.Components = append(doc.Components, c)
	}
	slices.SortFunc(doc.Components, func(a, b component) int { return strings.Compare(a.Ref, b.Ref) })
	doc.Serial = serial(doc)
	return doc, nil
}

// read is a program and what is linked into it.
func read(path, version, libraries string) (component, []component, error) {
	name := filepath.Base(path)
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return component{}, nil, err
	}
	sum, err := digest(path)
	if err != nil {
		return component{}, nil, err
	}
	program := component{Ref: "program:" + name, Type: "application", Name: name, Version: version, Hashes: []hash{{"SHA-256", sum}}, Licences: named("Apache-2.0")}
	parts := []component{{Ref: "golang:std@" + info.GoVersion, Type: "library", Name: "std", Version: info.GoVersion,
		PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"), Licences: named("BSD-3-Clause")}}
	for _, m := range info.Deps {
		part, err := module(m)
		if err != nil {
			return component{}, nil, err
		}
		parts = append(parts, part)
	}
	cgo := slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "CGO_ENABLED" && s.Value == "1" })
	if cgo && libraries != "" {
		for l := range strings.SplitSeq(libraries, ",") {
			lib, v, _ := strings.Cut(l, "=")
			id, known := libraryLicences[lib]
			if !known {
				return component{}, nil, fmt.Errorf("%s: its licence is not known here", lib)
			}
			purl := "pkg:deb/debian/" + lib + "@" + strings.NewReplacer("+", "%2B", ":", "%3A").Replace(v)
			parts = append(parts, component{Ref: purl, Type: "library", Name: lib, Version: v, PURL: purl, Licences: named(id)})
		}
	}
	return program, parts, nil
}

// libraryLicences of what the keeper is linked with, by Debian's names.
var libraryLicences = map[string]string{"libseccomp-dev": "LGPL-2.1-only", "libc6-dev": "LGPL-2.1-or-later"}

func module(m *debug.Module) (component, error) {
	if m.Replace != nil {
		m = m.Replace
	}
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	c := component{Ref: purl, Type: "library", Name: m.Path, Version: m.Version, PURL: purl}
	// go.sum's h1 is a SHA-256 over the files of the module.
	if sum, ok := strings.CutPrefix(m.Sum, "h1:"); ok {
		if raw, err := base64.StdEncoding.DecodeString(sum); err == nil {
			c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
		}
	}
	ids, err := licencesOf(m)
	c.Licences = named(ids...)
	return c, err
}

func named(ids ...string) []licence {
	all := make([]licence, len(ids))
	for i, id := range ids {
		all[i].Licence.ID = id
	}
	return all
}

// serial is a UUID that follows from the document, so that the same build has the same (RFC 9562, version 8).
func serial(doc document) string {
	text, _ := json.Marshal(doc) // of strings and numbers alone
	sum := sha256.Sum256(text)
	id := sum[:16]
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
