// Package auth answers: which credentials belong to a registry?
//
// It talks to no registry and remembers no secret: files are read and helpers
// asked anew for every question, so a `docker login` or a rotated password
// counts at the next pull. It reads no environment variable; a credential helper
// is a program found in PATH, as Docker does it, with the environment of this
// process. Tokens of Amazon ECR are package ecr's: only who imports that links
// the AWS SDK.
//
// Read first: Chain (chain.go), which asks sources in order and says where
// credentials came from, then Files (from.go), which reads what a Credentials
// or a Docker config.json (docker.go) names.
//
// # Invariants
//
//   - No error, log line or formatted value has a secret in it: not a file's
//     content, not what a helper printed instead of an answer.
//   - Every error is an *Error that names the registry, and the file or helper.
//   - A source that is configured and does not work is an error, never anonymity.
//   - What stands for one repository in a Docker config is not used for another.
package auth
