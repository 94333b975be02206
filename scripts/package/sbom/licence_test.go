package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"
)

func TestRecognise(t *testing.T) {
	own, err := os.ReadFile("../../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	bsd := "Redistribution and use in source and binary forms, with or without\n * modification, are permitted provided that:\n"
	for text, want := range map[string][]string{
		string(own): {"Apache-2.0"},
		"Permission is hereby granted, free of charge, to any person obtaining\na copy ... The above copyright notice and this permission notice shall": {"MIT"},
		bsd: {"BSD-2-Clause"},
		bsd + " * Neither the name of Google Inc. nor the names of its\n * contributors": {"BSD-3-Clause"},
		"All rights reserved.": nil,
	} {
		if got := recognise(text); !slices.Equal(got, want) {
			t.Errorf("%.60q: %v, want %v", text, got, want)
		}
	}
}

func TestEscape(t *testing.T) {
	if got := escape("github.com/BurntSushi/toml"); got != "github.com/!burnt!sushi/toml" {
		t.Error(got)
	}
}

// TestLicenceOfCapitals: what is escaped in the path is so in the version, too.
func TestLicenceOfCapitals(t *testing.T) {
	own, err := os.ReadFile("../../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	was := moduleCache
	moduleCache = func() (string, error) { return cache, nil }
	defer func() { moduleCache = was }()
	dir := filepath.Join(cache, "example.com", "!a", "b@v1.0.0-!r!c1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), own, 0o644); err != nil {
		t.Fatal(err)
	}
	m := &debug.Module{Path: "example.com/A/b", Version: "v1.0.0-RC1"}
	if got, err := licencesOf(m); err != nil || !slices.Equal(got, []string{"Apache-2.0"}) {
		t.Errorf("%v, %v", got, err)
	}
}
