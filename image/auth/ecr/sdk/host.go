package sdk

import (
	"strings"

	"github.com/awslabs/amazon-ecr-credential-helper/ecr-login/api"
)

// publicRegion is the only region that hands out tokens for the public gallery.
const publicRegion = "us-east-1"

// registry is what the name of a host says.
type registry struct {
	host      string
	account   string // empty: the public gallery
	region    string // whose API has the tokens
	fips      bool
	dualStack bool
}

func (r registry) public() bool { return r.account == "" }

// parse tells whether a host is ECR's. The table of partitions is that of the
// login helper.
func parse(host string) (registry, bool) {
	// The cheap look first: the helper parses a URL and tries a long pattern.
	if !strings.Contains(host, "ecr") {
		return registry{}, false
	}
	r, err := api.ExtractRegistry(host)
	if err != nil {
		return registry{}, false
	}
	if r.Service == api.ServiceECRPublic {
		return registry{host: host, region: publicRegion}, true
	}
	// 123456789012.dkr-ecr.REGION.on.aws answers over IPv6 too; its API has to.
	return registry{host: host, account: r.ID, region: r.Region, fips: r.FIPS, dualStack: strings.HasPrefix(host, r.ID+".dkr-ecr")}, true
}
