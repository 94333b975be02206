// Package ecr answers: which password does a registry of Amazon ECR take now?
//
// It is an authn.Keychain for private registries in any partition and region and
// for the public gallery. Every other host is anonymous, without a call to AWS.
// It remembers tokens; who gets them from AWS is Options.Fetch: package sdk beside
// this one, in the process itself, or Command, which asks the program wherry-ecr.
// The daemon does the latter: AWS's code would make every wherry command slower to
// start.
//
// AWS credentials come from the SDK's default chain: environment, shared config,
// web identity, container and instance role. So unlike the packages around it,
// this one hands the environment on, as the SDK documents it: AWS_PROFILE,
// AWS_ENDPOINT_URL_ECR, HTTPS_PROXY and so on. The chain is gone through anew for
// each token, which is once in twelve hours: nothing keeps keys that were rotated.
//
// Read first: Keychain (keychain.go), then Command (command.go).
//
// # Invariants
//
//   - Tokens are in memory only. (The SDK itself keeps tokens of AWS SSO in its own
//     files, if the operator logged in that way.)
//   - One request is in flight for a registry, however many pulls want its token.
//   - No request takes longer than Options.Timeout, also where no instance metadata
//     answers.
//   - A token is replaced while it is still good; if AWS does not answer then, the
//     old one is used until it ends.
//   - No error and no log line has a token, a key or a URL's path in it.
package ecr
