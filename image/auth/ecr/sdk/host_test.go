package sdk

import (
	"errors"
	"testing"

	"github.com/wherry-run/wherry/image/auth/ecr"
)

func TestPartitions(t *testing.T) {
	for host, want := range map[string]registry{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":                {account: "123456789012", region: "eu-west-1"},
		"123456789012.dkr.ecr.ap-northeast-1.amazonaws.com":           {account: "123456789012", region: "ap-northeast-1"},
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com":       {account: "123456789012", region: "us-gov-west-1", fips: true},
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":            {account: "123456789012", region: "cn-north-1"},
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":            {account: "123456789012", region: "eusc-de-east-1"},
		"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov":               {account: "123456789012", region: "us-iso-east-1"},
		"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":           {account: "123456789012", region: "us-isob-east-1"},
		"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":          {account: "123456789012", region: "eu-isoe-west-1"},
		"123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov":         {account: "123456789012", region: "us-isof-south-1"},
		"123456789012.dkr-ecr.eu-west-1.on.aws":                       {account: "123456789012", region: "eu-west-1", dualStack: true},
		"123456789012.dkr-ecr-fips.us-east-1.on.aws":                  {account: "123456789012", region: "us-east-1", fips: true, dualStack: true},
		"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": {account: "123456789012", region: "cn-north-1", dualStack: true},
		"public.ecr.aws":     {region: "us-east-1"},
		"ecr-public.aws.com": {region: "us-east-1"},
	} {
		want.host = host
		if got, ok := parse(host); !ok || got != want {
			t.Errorf("%s: %+v %v", host, got, ok)
		}
	}
}

func TestOtherHostsAreNotECR(t *testing.T) {
	for _, host := range []string{"docker.io", "ecr.example", "123456789012.dkr.ecr.eu-west-1.amazonaws.com.example.net", "my-public.ecr.aws"} {
		if _, err := Fetch(nil)(t.Context(), host); !errors.Is(err, ecr.ErrNotECR) {
			t.Errorf("%s: %v", host, err)
		}
	}
}
