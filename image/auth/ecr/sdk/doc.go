// Package sdk gets the tokens of Amazon ECR by AWS's own SDK and its default chain of
// credentials. All of the SDK that this module links is behind this package; who
// does not import it does not have it. See package ecr, which remembers tokens.
package sdk
