package sdk

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/wherry-run/wherry/image/auth"
	"github.com/wherry-run/wherry/image/auth/ecr"
	"github.com/wherry-run/wherry/image/imagetest"
)

const private1 = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

func repository(t *testing.T, host string) authn.Resource {
	t.Helper()
	r, err := name.NewRepository(host + "/app")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// passwordOf resolves a host; "" is anonymous.
func passwordOf(t *testing.T, k *ecr.Keychain, host string) string {
	t.Helper()
	a, err := k.ResolveContext(t.Context(), repository(t, host))
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Authorization()
	if err != nil {
		t.Fatal(err)
	}
	return c.Password
}

// environ makes env the only AWS environment, and returns an empty home.
func environ(t *testing.T, env []string) (home string) {
	t.Helper()
	for _, kv := range os.Environ() {
		if key, _, _ := strings.Cut(kv, "="); strings.HasPrefix(key, "AWS_") {
			t.Setenv(key, "")
			os.Unsetenv(key)
		}
	}
	home = t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("NO_PROXY", "*")
	for _, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		t.Setenv(key, value)
	}
	return home
}

func fakeAWS(t *testing.T) *imagetest.ECR {
	t.Helper()
	e := imagetest.StartECR()
	t.Cleanup(e.Close)
	return e
}

// logged is a keychain over a fetch that is made with its logger.
func logged(fetch func(*slog.Logger) ecr.Fetch) (*ecr.Keychain, *bytes.Buffer) {
	var log bytes.Buffer
	l := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return ecr.New(ecr.Options{Logger: l, Fetch: fetch(l)}), &log
}

// noSecrets looks for what the fake handed out.
func noSecrets(t *testing.T, e *imagetest.ECR, where ...string) {
	t.Helper()
	for _, s := range e.Passwords() {
		for _, w := range where {
			if strings.Contains(w, s) {
				t.Errorf("a secret shows in: %s", w)
			}
		}
	}
}

// empty looks for files.
func empty(t *testing.T, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if path != dir {
			t.Errorf("%s was written", path)
		}
		return err
	})
}

func TestDefaultChain(t *testing.T) {
	for _, tc := range []struct {
		name, from string
		env        func(*testing.T, *imagetest.ECR) ([]string, error)
		asked      string // must have been asked
	}{
		{"environment", "the environment", func(_ *testing.T, e *imagetest.ECR) ([]string, error) { return e.StaticEnviron(), nil }, ""},
		{"shared config", "/aws-credentials", func(t *testing.T, e *imagetest.ECR) ([]string, error) { return e.SharedEnviron(t.TempDir()) }, ""},
		{"instance", "the instance role", func(_ *testing.T, e *imagetest.ECR) ([]string, error) { return e.InstanceEnviron(), nil }, "imds"},
		{"container", "the container role", func(_ *testing.T, e *imagetest.ECR) ([]string, error) { return e.ContainerEnviron(), nil }, "container"},
		{"web identity", "a web identity", func(t *testing.T, e *imagetest.ECR) ([]string, error) { return e.WebIdentityEnviron(t.TempDir()) }, "sts"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := fakeAWS(t)
			env, err := tc.env(t, e)
			if err != nil {
				t.Fatal(err)
			}
			home := environ(t, env)
			k, log := logged(Fetch)
			for _, host := range []string{private1, "public.ecr.aws", private1} {
				a, err := authn.Resolve(t.Context(), k, repository(t, host))
				if err != nil {
					t.Fatal(err)
				}
				if from := auth.Origin(a); !strings.HasPrefix(from, "ECR, with AWS credentials from ") || !strings.HasSuffix(from, tc.from) {
					t.Errorf("%s: %q", host, from)
				}
				status := enter(e, host, a)
				if status != http.StatusOK {
					t.Errorf("%s answers %d", host, status)
				}
			}
			if got := e.Requests("GetAuthorizationToken"); len(got) != 2 || got[0] != "ecr GetAuthorizationToken eu-west-1" || got[1] != "ecr-public GetAuthorizationToken us-east-1" {
				t.Errorf("%q", got)
			}
			if tc.asked != "" && len(e.Requests(tc.asked)) == 0 {
				t.Errorf("nobody asked for %s", tc.asked)
			}
			noSecrets(t, e, log.String())
			empty(t, home)
		})
	}
}

// enter asks the fake registry with credentials.
func enter(e *imagetest.ECR, host string, a authn.Authenticator) int {
	r := httptest.NewRequest(http.MethodGet, "https://"+host+"/v2/", nil)
	if c, err := a.Authorization(); err == nil && c.Username != "" {
		r.SetBasicAuth(c.Username, c.Password)
	}
	w := httptest.NewRecorder()
	e.Front(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w.Code
}

func TestExpiredTokenIsRefreshed(t *testing.T) {
	e := fakeAWS(t)
	environ(t, e.InstanceEnviron())
	k, _ := logged(Fetch)
	ask := func() int {
		a, err := k.Resolve(repository(t, private1))
		if err != nil {
			t.Fatal(err)
		}
		return enter(e, private1, a)
	}
	if s := ask(); s != http.StatusOK {
		t.Fatal(s)
	}
	// The role was rotated: its keys and all that was made with them are dead.
	e.ExpireTokens()
	e.RevokeKeys()
	if s := ask(); s != http.StatusForbidden {
		t.Fatal(s)
	}
	k.Invalidate(private1)
	if s := ask(); s != http.StatusOK {
		t.Error(s)
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(t *testing.T, e *imagetest.ECR) []string
		want    []string
		heals   bool // the next call works
	}{
		{"no credentials", func(_ *testing.T, e *imagetest.ECR) []string { return e.NoEnviron() },
			[]string{"no AWS credentials found", "none in the environment", "/nonexistent/aws-credentials and /nonexistent/aws-config", "no instance role"}, false},
		{"no metadata service", func(t *testing.T, e *imagetest.ECR) []string {
			return append(e.InstanceEnviron(), "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://"+silent(t))
		}, []string{"no AWS credentials found", "no instance role"}, false},
		{"wrong web identity", func(t *testing.T, e *imagetest.ECR) []string {
			env, err := e.WebIdentityEnviron(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return append(env, "AWS_ROLE_ARN=arn:aws:iam::123456789012:role/other")
		}, []string{"AWS credentials from a web identity", "InvalidIdentityToken"}, false},
		{"container refuses", func(_ *testing.T, e *imagetest.ECR) []string {
			return append(e.ContainerEnviron(), "AWS_CONTAINER_AUTHORIZATION_TOKEN=wrong")
		}, []string{"AWS credentials from the container role", "AccessDenied"}, false},
		{"container is gone", func(_ *testing.T, e *imagetest.ECR) []string {
			env := e.ContainerEnviron()
			e.Close()
			return env
		}, []string{"AWS credentials from the container role", "connection refused"}, false},
		{"not allowed", func(_ *testing.T, e *imagetest.ECR) []string {
			e.Fail("AccessDeniedException", http.StatusBadRequest, 1)
			return e.StaticEnviron()
		}, []string{"with AWS credentials from the environment", "AccessDeniedException: broken on purpose"}, true},
		{"unknown key", func(_ *testing.T, e *imagetest.ECR) []string {
			e.RevokeKeys()
			return e.StaticEnviron()
		}, []string{"UnrecognizedClientException"}, false},
		{"empty answer", func(_ *testing.T, e *imagetest.ECR) []string {
			e.Fail("", 0, 1)
			return e.StaticEnviron()
		}, []string{"AWS answered without a token"}, true},
		{"slow clock", func(_ *testing.T, e *imagetest.ECR) []string {
			e.SetClock(2*time.Hour + 30*time.Second)
			return e.StaticEnviron()
		}, []string{"the clock of this host is 2h0m", "behind"}, false},
		{"fast clock", func(_ *testing.T, e *imagetest.ECR) []string {
			e.SetClock(-2*time.Hour - 30*time.Second)
			return e.StaticEnviron()
		}, []string{"the clock of this host is 2h0m", "ahead"}, false},
		{"broken config", func(t *testing.T, e *imagetest.ECR) []string {
			path := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(path, []byte("[profile x]\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return append(e.NoEnviron(), "AWS_CONFIG_FILE="+path, "AWS_PROFILE=missing")
		}, []string{"AWS configuration", "missing"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := fakeAWS(t)
			home := environ(t, tc.prepare(t, e))
			k, log := logged(func(l *slog.Logger) ecr.Fetch {
				return fetcher{defaultChain(l, config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }))}.byHost
			})
			_, err := k.Resolve(repository(t, private1))
			var known *auth.Error
			if !errors.As(err, &known) || known.Registry != private1 {
				t.Fatal(err)
			}
			for _, w := range append(tc.want, private1, "eu-west-1") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
			noSecrets(t, e, err.Error(), log.String())
			empty(t, home)

			// The public gallery is open to everybody.
			if got := passwordOf(t, k, "public.ecr.aws"); got != "" && !tc.heals {
				t.Errorf("%q", got)
			}
			noSecrets(t, e, log.String())
		})
	}
}

// silent is an address that takes connections and never answers.
func silent(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// A host whose clock is wrong gets a token all the same, and AWS's clock counts
// for the token's life.
func TestWrongClock(t *testing.T) {
	for _, ahead := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		e := fakeAWS(t)
		environ(t, e.StaticEnviron())
		e.SetClock(ahead)
		f := fetcher{defaultChain(slog.New(slog.DiscardHandler))}
		for _, host := range []string{private1, "public.ecr.aws"} {
			got, err := f.token(t.Context(), mustParse(t, host))
			if err != nil || got.Life < 11*time.Hour || got.Life > 13*time.Hour {
				t.Errorf("%v: life %v: %v", ahead, got.Life, err)
			}
		}
	}
}

func mustParse(t *testing.T, host string) registry {
	t.Helper()
	r, ok := parse(host)
	if !ok {
		t.Fatal(host)
	}
	return r
}

// A token ends with the session that it was made with.
func TestLifeOfTheSession(t *testing.T) {
	e := fakeAWS(t)
	environ(t, e.ContainerEnviron())
	e.SetKeyLife(20 * time.Minute)
	f := fetcher{defaultChain(slog.New(slog.DiscardHandler))}
	got, err := f.token(t.Context(), mustParse(t, private1))
	if err != nil || got.Life > 20*time.Minute || got.Life < 15*time.Minute {
		t.Error(got.Life, err)
	}
}

// The endpoint is that of the registry's partition, with its FIPS and dual-stack
// forms.
func TestEndpoints(t *testing.T) {
	environ(t, []string{"AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b", "AWS_EC2_METADATA_DISABLED=true"})
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":          "api.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":     "api.ecr-fips.us-east-1.amazonaws.com",
		"123456789012.dkr-ecr.eu-west-1.on.aws":                 "ecr.eu-west-1.api.aws",
		"123456789012.dkr-ecr-fips.us-east-1.on.aws":            "ecr-fips.us-east-1.api.aws",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":      "api.ecr.cn-north-1.amazonaws.com.cn",
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": "api.ecr-fips.us-gov-west-1.amazonaws.com",
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":      "api.ecr.eusc-de-east-1.amazonaws.eu",
		"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov":         "api.ecr.us-iso-east-1.c2s.ic.gov",
		"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":     "api.ecr.us-isob-east-1.sc2s.sgov.gov",
		"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":    "api.ecr.eu-isoe-west-1.cloud.adc-e.uk",
		"123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov":   "api.ecr.us-isof-south-1.csp.hci.ic.gov",
		"123456789012.dkr.ecr.ap-southeast-99.amazonaws.com":    "api.ecr.ap-southeast-99.amazonaws.com",
		"public.ecr.aws": "api.ecr-public.us-east-1.amazonaws.com",
	} {
		var asked string
		k := ecr.New(ecr.Options{Fetch: fetcher{func(ctx context.Context, region string) (aws.Config, error) {
			cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithRetryMaxAttempts(1))
			cfg.HTTPClient = doer(func(r *http.Request) (*http.Response, error) {
				asked = r.URL.Host
				return nil, errors.New("not sent")
			})
			return cfg, err
		}}.byHost})
		_, _ = k.Resolve(repository(t, host))
		if asked != want {
			t.Errorf("%s: %q, want %q", host, asked, want)
		}
	}
}

type doer func(*http.Request) (*http.Response, error)

// Do implements aws.HTTPClient.
func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }

// An endpoint that the operator sets is used for every form of host.
func TestEndpointOverride(t *testing.T) {
	e := fakeAWS(t)
	environ(t, e.StaticEnviron())
	k, _ := logged(Fetch)
	for _, host := range []string{"123456789012.dkr-ecr.eu-west-1.on.aws", "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com"} {
		if passwordOf(t, k, host) == "" {
			t.Error(host)
		}
	}
}

// A proxy of the environment is not asked for what only this host can reach.
func TestProxyIsNotForMetadata(t *testing.T) {
	there := &url.URL{Host: "proxy.example"}
	f := notLinkLocal(func(*http.Request) (*url.URL, error) { return there, nil })
	for target, want := range map[string]*url.URL{
		"http://169.254.169.254/latest/":          nil,
		"http://169.254.170.2/v2/credentials/x":   nil,
		"http://[fd00:ec2::254]/latest/":          nil,
		"https://api.ecr.eu-west-1.amazonaws.com": there,
		"https://10.0.0.1/":                       there,
	} {
		if got, err := f(httptest.NewRequest(http.MethodGet, target, nil)); got != want || err != nil {
			t.Errorf("%s: %v, %v", target, got, err)
		}
	}
	if got, err := notLinkLocal(nil)(httptest.NewRequest(http.MethodGet, "https://x.example", nil)); got != nil || err != nil {
		t.Error(got, err)
	}
}
