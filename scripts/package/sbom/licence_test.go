package main

import (
	"os"
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
