package ecr

import "strings"

// The names of the public gallery, which everybody may read.
func public(host string) bool { return host == "public.ecr.aws" || host == "ecr-public.aws.com" }

// account is how many digits AWS account numbers have.
const account = 12

// looksLike tells whether a host may be ECR's: account.dkr.ecr.region, in the
// forms of all partitions. Whether it is, only Fetch knows.
func looksLike(host string) bool {
	if public(host) {
		return true
	}
	number, rest, ok := strings.Cut(host, ".")
	if !ok || len(number) != account || strings.Trim(number, "0123456789") != "" {
		return false
	}
	for _, form := range []string{"dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."} {
		if strings.HasPrefix(rest, form) {
			return true
		}
	}
	return false
}
