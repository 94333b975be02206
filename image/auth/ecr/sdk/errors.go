package sdk

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// retrieve gets the AWS credentials, or says where there are none.
func retrieve(ctx context.Context, cfg aws.Config) (aws.Credentials, error) {
	if cfg.Credentials == nil {
		return aws.Credentials{}, errors.New("no AWS credentials found")
	}
	creds, err := cfg.Credentials.Retrieve(ctx)
	if err == nil {
		return creds, nil
	}
	err = translate(ctx, err)
	from := chosen(cfg.Credentials)
	if from == "the instance role" { // the last of the chain
		return creds, fmt.Errorf("no AWS credentials found: none in the environment, none in %s, no container role, and no instance role: %w", sharedFiles(), err)
	}
	return creds, fmt.Errorf("AWS credentials from %s: %w", from, err)
}

// sharedFiles are the files that the SDK reads.
func sharedFiles() string {
	name := func(variable, fallback string) string {
		if v := os.Getenv(variable); v != "" {
			return v
		}
		return filepath.Clean(fallback)
	}
	return name("AWS_SHARED_CREDENTIALS_FILE", config.DefaultSharedCredentialsFilename()) + " and " +
		name("AWS_CONFIG_FILE", config.DefaultSharedConfigFilename())
}

// chosen is the link of the chain that the SDK has settled on, in words.
func chosen(p aws.CredentialsProvider) string {
	c, ok := p.(aws.CredentialProviderSource)
	if !ok {
		return "the given configuration"
	}
	all := c.ProviderSources()
	if len(all) == 0 {
		return "the given configuration"
	}
	switch all[len(all)-1] {
	case aws.CredentialSourceIMDS:
		return "the instance role"
	case aws.CredentialSourceHTTP:
		return "the container role"
	case aws.CredentialSourceEnvVarsSTSWebIDToken, aws.CredentialSourceProfileSTSWebIDToken, aws.CredentialSourceSTSAssumeRoleWebID:
		return "a web identity"
	case aws.CredentialSourceSTSAssumeRole:
		return "an assumed role"
	case aws.CredentialSourceProcess, aws.CredentialSourceProfileProcess:
		return "credential_process"
	case aws.CredentialSourceSSO, aws.CredentialSourceProfileSSO, aws.CredentialSourceSSOLegacy, aws.CredentialSourceProfileSSOLegacy:
		return "AWS SSO"
	}
	return "the shared config"
}

// source turns the SDK's names for where credentials are from into words.
func source(name string) string {
	for _, s := range []struct{ begins, words string }{
		{"EnvConfigCredentials", "the environment"},
		{"SharedConfigCredentials: ", strings.TrimPrefix(name, "SharedConfigCredentials: ")},
		{"EC2RoleProvider", "the instance role"},
		{"CredentialsEndpointProvider", "the container role"},
		{"WebIdentityCredentials", "a web identity"},
		{"AssumeRoleProvider", "an assumed role"},
		{"ProcessProvider", "credential_process"},
		{"SSOProvider", "AWS SSO"},
	} {
		if strings.HasPrefix(name, s.begins) {
			return s.words
		}
	}
	return "the given configuration"
}

// translate says in a line what the SDK wraps in many. URLs are cut to their
// host: the path of a container's credentials is a secret.
func translate(ctx context.Context, err error) error {
	var refusal smithy.APIError
	var request *url.Error
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case errors.As(err, &refusal):
		return fmt.Errorf("%s: %s%s", refusal.ErrorCode(), refusal.ErrorMessage(), clockHint(err))
	case errors.As(err, &request):
		host := "AWS"
		if u, perr := url.Parse(request.URL); perr == nil {
			host = u.Host
		}
		return fmt.Errorf("%s: %w%s", host, request.Err, certificateHint(request.Err))
	}
	return err
}

// clockCodes are how AWS services refuse a signature that is too old or from
// the future; some say no more than that it is wrong.
var clockCodes = []string{"InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"}

// maxSkew is how far from its own clock AWS takes a signature.
const maxSkew = 5 * time.Minute

// clockHint compares our clock with the one of the answer.
func clockHint(err error) string {
	var refusal smithy.APIError
	var resp *smithyhttp.ResponseError
	if !errors.As(err, &refusal) || !slices.Contains(clockCodes, refusal.ErrorCode()) || !errors.As(err, &resp) || resp.Response == nil {
		return ""
	}
	theirs, perr := time.Parse(http.TimeFormat, resp.Response.Header.Get("Date"))
	if perr != nil {
		return ""
	}
	switch off := time.Until(theirs).Round(time.Second); {
	case off > maxSkew:
		return fmt.Sprintf(" (the clock of this host is %v behind that of AWS)", off)
	case off < -maxSkew:
		return fmt.Sprintf(" (the clock of this host is %v ahead of that of AWS)", -off)
	}
	return ""
}

func certificateHint(err error) string {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return fmt.Sprintf(" (is the clock of this host right? It says %s)", time.Now().UTC().Format(time.DateTime))
	}
	return ""
}
