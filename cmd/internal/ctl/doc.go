// Package ctl is `wherry ctl`: how does a person or a script ask the daemon?
//
// Each verb is a file, and the table in root.go lists them all. A verb reads
// its flags, makes one or a few calls of api.Client and prints the answer; what
// an embedder would miss stands in the library instead. Read root.go and app
// (app.go) first.
//
// Two vocabularies: --format json gives the API's own types; ps, images and
// templates of inspect use a small Docker-shaped view (docker.go), so that
// scripts written for Docker work.
package ctl
