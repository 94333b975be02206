package sdk

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/smithy-go/logging"
	smithy "github.com/aws/smithy-go/middleware"
	"github.com/awslabs/amazon-ecr-credential-helper/ecr-login/api"

	known "github.com/wherry-run/wherry/image/auth/ecr"
)

// userAgent names us beside the SDK in AWS's own logs.
const userAgent = "wherry"

// Fetch makes a fetch that goes through the SDK's default chain for each token. A nil
// logger discards.
func Fetch(log *slog.Logger) known.Fetch {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return fetcher{defaultChain(log)}.byHost
}

// fetcher asks AWS for tokens.
type fetcher struct {
	config func(ctx context.Context, region string) (aws.Config, error)
}

func (f fetcher) byHost(ctx context.Context, host string) (known.Token, error) {
	r, ok := parse(host)
	if !ok {
		return known.Token{}, known.ErrNotECR
	}
	return f.token(ctx, r)
}

// defaultChain loads the SDK's configuration as every AWS tool does.
func defaultChain(log *slog.Logger, more ...func(*config.LoadOptions) error) func(context.Context, string) (aws.Config, error) {
	// The SDK would write to stderr.
	logger := logging.LoggerFunc(func(_ logging.Classification, format string, v ...any) {
		log.Debug("AWS SDK: " + fmt.Sprintf(format, v...))
	})
	return func(ctx context.Context, region string) (aws.Config, error) {
		client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy = notLinkLocal(t.Proxy) })
		return config.LoadDefaultConfig(ctx, append(more, config.WithRegion(region), config.WithLogger(logger), config.WithHTTPClient(client),
			config.WithAPIOptions([]func(*smithy.Stack) error{middleware.AddUserAgentKey(userAgent)}))...)
	}
}

// notLinkLocal keeps HTTP_PROXY from the metadata and credentials services of AWS
// at 169.254.0.0/16 and fd00:ec2::/32: a proxy cannot reach those of this host,
// and would see the keys of its role.
func notLinkLocal(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	ec2 := netip.MustParsePrefix("fd00:ec2::/32")
	return func(r *http.Request) (*url.URL, error) {
		ip, err := netip.ParseAddr(r.URL.Hostname())
		if proxy == nil || err == nil && (ip.IsLinkLocalUnicast() || ec2.Contains(ip)) {
			return nil, nil
		}
		return proxy(r)
	}
}

// token asks for a registry's token. The credentials are looked for before, so
// that an error tells the lack of credentials from a refusal by ECR.
func (f fetcher) token(ctx context.Context, r registry) (known.Token, error) {
	cfg, err := f.config(ctx, r.region)
	if err != nil {
		return known.Token{}, fmt.Errorf("ECR in %s: AWS configuration: %w", r.region, translate(ctx, err))
	}
	creds, err := retrieve(ctx, cfg)
	if err != nil {
		return known.Token{}, fmt.Errorf("ECR in %s: %w", r.region, err)
	}
	ask := private
	if r.public() {
		ask = public
	}
	a, err := ask(ctx, cfg, r)
	if err != nil {
		return known.Token{}, fmt.Errorf("ECR in %s, with AWS credentials from %s: %w", r.region, source(creds.Source), translate(ctx, err))
	}
	password, err := password(aws.ToString(a.token))
	if err != nil {
		return known.Token{}, fmt.Errorf("ECR in %s: %w", r.region, err)
	}
	return known.Token{Password: password, From: "ECR, with AWS credentials from " + source(creds.Source), Life: a.life(creds)}, nil
}

// answer is what both APIs say.
type answer struct {
	token   *string
	expires *time.Time
	meta    smithy.Metadata
}

// private asks without an account: a token is good for every registry of a region
// that the caller may use, whoever owns it.
func private(ctx context.Context, cfg aws.Config, r registry) (answer, error) {
	client := ecr.NewFromConfig(cfg, func(o *ecr.Options) {
		o.Retryer = withPatience(o.Retryer)
		// An endpoint that the operator has set, such as one in his own network,
		// is used as it is; the SDK would refuse it together with these.
		if o.BaseEndpoint != nil {
			return
		}
		if r.fips {
			o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
		}
		if r.dualStack {
			o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
		}
	})
	out, err := api.NewECRClientWrapper(client).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return answer{}, err
	}
	if len(out.AuthorizationData) == 0 {
		return answer{}, errors.New("AWS answered without a token")
	}
	d := out.AuthorizationData[0]
	return answer{d.AuthorizationToken, d.ExpiresAt, out.ResultMetadata}, nil
}

func public(ctx context.Context, cfg aws.Config, _ registry) (answer, error) {
	client := ecrpublic.NewFromConfig(cfg, func(o *ecrpublic.Options) { o.Retryer = withPatience(o.Retryer) })
	out, err := api.NewECRPublicClientWrapper(client).GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
	if err != nil {
		return answer{}, err
	}
	if out.AuthorizationData == nil {
		return answer{}, errors.New("AWS answered without a token")
	}
	return answer{out.AuthorizationData.AuthorizationToken, out.AuthorizationData.ExpiresAt, out.ResultMetadata}, nil
}

// patient calls again if AWS refused for the time of the signature: a client
// learns from an answer how far its clock is off, and uses that in its next
// attempt. A host that boots without a clock gets its token so.
type patient struct{ aws.RetryerV2 }

func withPatience(r aws.Retryer) aws.Retryer {
	if v2, ok := r.(aws.RetryerV2); ok {
		return patient{v2}
	}
	return r
}

// IsErrorRetryable implements aws.Retryer.
func (p patient) IsErrorRetryable(err error) bool {
	return clockHint(err) != "" || p.RetryerV2.IsErrorRetryable(err)
}

// life is how long the token is good: by the clock of AWS, since ours may be
// wrong, and not longer than the session that it was made with, since it ends
// with that (kubernetes#69141). The SDK gives a role's credentials out until they
// end, so that what is left of them may be short; then the next token, made with
// new ones, is long again.
func (a answer) life(creds aws.Credentials) time.Duration {
	now := time.Now()
	if server, ok := middleware.GetServerTime(a.meta); ok {
		now = server
	}
	const usual = 12 * time.Hour
	life := usual
	if a.expires != nil {
		life = a.expires.Sub(now)
	}
	if creds.CanExpire { // the end may be by our clock or by that of AWS
		life = min(life, max(creds.Expires.Sub(now), time.Until(creds.Expires)))
	}
	return life
}

// password takes the token apart: it is base64 of "AWS:password".
func password(token string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(token)
	user, password, ok := strings.Cut(string(b), ":")
	if err != nil || !ok || user != "AWS" || password == "" {
		return "", errors.New("AWS answered with a token of an unknown form")
	}
	return password, nil
}
