package imagetest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ECR is a fake of those AWS services that a pull from Amazon ECR needs, on one
// loopback port: the APIs of ECR and ECR Public that hand out tokens, STS for
// web identities, the metadata service of an instance (version 2) and the
// credentials endpoint of a container. It checks signatures as AWS does.
//
// The environment that an SDK or a daemon needs to find it comes from the
// functions ...Environ. A registry that takes its tokens is made by Front, and a
// Proxy leads names such as 123456789012.dkr.ecr.eu-west-1.amazonaws.com to it.
type ECR struct {
	URL string // of all services

	server *httptest.Server

	mu       sync.Mutex
	keys     map[string]Key // by ID
	tokens   map[string]ecrToken
	sessions map[string]time.Time // of the metadata service
	life     time.Duration
	keyLife  time.Duration
	offset   time.Duration
	fault    ecrFault
	requests []string
	identity string // what AssumeRoleWithWebIdentity takes
}

// Key is an AWS access key.
type Key struct {
	ID, Secret string
	Session    string    // token of a temporary key; empty: a user's permanent one
	Expires    time.Time // zero: never
}

// ecrToken is a registry password that was handed out.
type ecrToken struct {
	region  string // empty: the public gallery
	expires time.Time
}

type ecrFault struct {
	code   string
	status int
	times  int
}

const (
	ecrRole       = "wherry-instance"
	ecrRoleARN    = "arn:aws:iam::123456789012:role/wherry-web"
	ecrContainer  = "/v2/credentials/0f2a-secret-path"
	ecrContainerA = "container-authorization"
)

// ecrUser is the permanent key of StaticEnviron.
var ecrUser = Key{ID: "AKIDFAKEUSER", Secret: "fake-user-secret-key"}

// StartECR starts the fake. Close it.
func StartECR() *ECR {
	e := &ECR{
		keys: map[string]Key{ecrUser.ID: ecrUser}, tokens: map[string]ecrToken{}, sessions: map[string]time.Time{},
		life: 12 * time.Hour, keyLife: 6 * time.Hour, identity: "web-identity-" + rand.Text(),
	}
	e.server = httptest.NewServer(e)
	e.URL = e.server.URL
	return e
}

// Close stops the fake at once.
func (e *ECR) Close() {
	e.server.CloseClientConnections()
	e.server.Close()
}

// SetTokenLife says how long tokens that are handed out from now on are good:
// 12 hours if it was never called.
func (e *ECR) SetTokenLife(d time.Duration) { e.locked(func() { e.life = d }) }

// SetKeyLife is the same for the keys of roles: 6 hours.
func (e *ECR) SetKeyLife(d time.Duration) { e.locked(func() { e.keyLife = d }) }

// SetClock makes the clock of AWS differ from ours.
func (e *ECR) SetClock(ahead time.Duration) { e.locked(func() { e.offset = ahead }) }

// ExpireTokens makes all tokens that were handed out invalid, whatever was said
// of their end.
func (e *ECR) ExpireTokens() {
	e.locked(func() {
		for p, t := range e.tokens {
			t.expires = time.Time{}
			e.tokens[p] = t
		}
	})
}

// RevokeKeys makes all keys of roles, and the user's, invalid.
func (e *ECR) RevokeKeys() { e.locked(func() { clear(e.keys) }) }

// Fail makes the next calls of the APIs of ECR fail: with an AWS error code such
// as "AccessDeniedException", or with "" by an empty answer. 0 times: never again.
func (e *ECR) Fail(code string, status, times int) {
	e.locked(func() { e.fault = ecrFault{code, status, times} })
}

// Requests returns the calls so far that contain s: "ecr GetAuthorizationToken
// REGION", "sts AssumeRoleWithWebIdentity", "imds PATH", "container".
func (e *ECR) Requests(s string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var got []string
	for _, r := range e.requests {
		if strings.Contains(r, s) {
			got = append(got, r)
		}
	}
	return got
}

// Passwords returns the passwords and secret keys in use, so that a test can
// look for them where they must not be.
func (e *ECR) Passwords() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	got := []string{ecrUser.Secret, ecrContainer, ecrContainerA, e.identity}
	for p := range e.tokens {
		got = append(got, p)
	}
	for _, k := range e.keys {
		got = append(got, k.Secret)
		if k.Session != "" {
			got = append(got, k.Session)
		}
	}
	return got
}

// endpoints is the part that every environment has. The files do not exist, so
// that no configuration of the host counts.
func (e *ECR) endpoints() []string {
	return []string{
		"AWS_ENDPOINT_URL_ECR=" + e.URL, "AWS_ENDPOINT_URL_ECR_PUBLIC=" + e.URL, "AWS_ENDPOINT_URL_STS=" + e.URL,
		"AWS_CONFIG_FILE=/nonexistent/aws-config", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent/aws-credentials",
	}
}

// NoEnviron leads to the fake, without credentials.
func (e *ECR) NoEnviron() []string {
	return append(e.endpoints(), "AWS_EC2_METADATA_DISABLED=true")
}

// StaticEnviron has the keys of a user in environment variables.
func (e *ECR) StaticEnviron() []string {
	return append(e.NoEnviron(), "AWS_ACCESS_KEY_ID="+ecrUser.ID, "AWS_SECRET_ACCESS_KEY="+ecrUser.Secret)
}

// SharedEnviron has them in a shared credentials file, which it writes into dir.
func (e *ECR) SharedEnviron(dir string) ([]string, error) {
	path := filepath.Join(dir, "aws-credentials")
	body := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", ecrUser.ID, ecrUser.Secret)
	return append(e.NoEnviron(), "AWS_SHARED_CREDENTIALS_FILE="+path), os.WriteFile(path, []byte(body), 0o600)
}

// InstanceEnviron has an instance with a role.
func (e *ECR) InstanceEnviron() []string {
	return append(e.endpoints(), "AWS_EC2_METADATA_SERVICE_ENDPOINT="+e.URL)
}

// ContainerEnviron has a container with a role.
func (e *ECR) ContainerEnviron() []string {
	return append(e.NoEnviron(), "AWS_CONTAINER_CREDENTIALS_FULL_URI="+e.URL+ecrContainer, "AWS_CONTAINER_AUTHORIZATION_TOKEN="+ecrContainerA)
}

// WebIdentityEnviron has a web identity, whose token it writes into dir.
func (e *ECR) WebIdentityEnviron(dir string) ([]string, error) {
	path := filepath.Join(dir, "web-identity")
	return append(e.NoEnviron(), "AWS_WEB_IDENTITY_TOKEN_FILE="+path, "AWS_ROLE_ARN="+ecrRoleARN, "AWS_REGION=eu-west-1"),
		os.WriteFile(path, []byte(e.identity), 0o600)
}

// ServeHTTP implements http.Handler.
func (e *ECR) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	w.Header().Set("Date", e.now().UTC().Format(http.TimeFormat))
	switch {
	case strings.HasPrefix(r.URL.Path, "/latest/"):
		e.metadata(w, r)
	case r.URL.Path == ecrContainer:
		e.container(w, r)
	case r.Header.Get("X-Amz-Target") == "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken":
		e.authorizationToken(w, r, body, "ecr")
	case r.Header.Get("X-Amz-Target") == "SpencerFrontendService.GetAuthorizationToken":
		e.authorizationToken(w, r, body, "ecr-public")
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded"):
		e.sts(w, body)
	default:
		http.NotFound(w, r)
	}
}

func (e *ECR) locked(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func (e *ECR) now() time.Time { return time.Now().Add(e.offset) }

func (e *ECR) note(format string, a ...any) {
	e.requests = append(e.requests, fmt.Sprintf(format, a...))
}

// authorizationToken is the one call of both ECR APIs that login needs.
func (e *ECR) authorizationToken(w http.ResponseWriter, r *http.Request, body []byte, service string) {
	sig, code, message := e.verify(r, body, service)
	e.note("%s GetAuthorizationToken %s", service, sig.region)
	if code == "" && e.fault.times > 0 {
		e.fault.times--
		if e.fault.code == "" {
			fmt.Fprint(w, "{}")
			return
		}
		awsError(w, e.fault.status, e.fault.code, "broken on purpose")
		return
	}
	switch {
	case code != "":
		awsError(w, http.StatusBadRequest, code, message)
		return
	case service == "ecr-public" && sig.region != "us-east-1":
		awsError(w, http.StatusBadRequest, "UnrecognizedClientException", "The gallery is in us-east-1.")
		return
	}
	region := sig.region
	if service == "ecr-public" {
		region = ""
	}
	password := "ecr-" + rand.Text() + rand.Text()
	expires := e.now().Add(e.life)
	e.tokens[password] = ecrToken{region, expires}
	data := map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + password)),
		"expiresAt":          float64(expires.UnixMilli()) / 1000,
	}
	var answer any = map[string]any{"authorizationData": data}
	if service == "ecr" {
		data["proxyEndpoint"] = "https://123456789012.dkr.ecr." + region + ".amazonaws.com"
		answer = map[string]any{"authorizationData": []any{data}}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(answer)
}

func awsError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

// roleKey makes the temporary key of a role.
func (e *ECR) roleKey() Key {
	k := Key{ID: "ASIA" + rand.Text()[:12], Secret: "role-" + rand.Text(), Session: "session-" + rand.Text(), Expires: e.now().Add(e.keyLife)}
	e.keys[k.ID] = k
	return k
}

// metadata is version 2 of the metadata service: nothing without a session.
func (e *ECR) metadata(w http.ResponseWriter, r *http.Request) {
	e.note("imds %s", r.URL.Path)
	if r.URL.Path == "/latest/api/token" {
		if r.Method != http.MethodPut || r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == "" {
			http.Error(w, "PUT with a TTL is needed", http.StatusBadRequest)
			return
		}
		session := rand.Text()
		e.sessions[session] = e.now().Add(6 * time.Hour)
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		fmt.Fprint(w, session)
		return
	}
	if e.now().After(e.sessions[r.Header.Get("X-Aws-Ec2-Metadata-Token")]) {
		http.Error(w, "a session token is needed", http.StatusUnauthorized)
		return
	}
	const folder = "/latest/meta-data/iam/security-credentials/"
	switch r.URL.Path {
	case folder:
		fmt.Fprint(w, ecrRole)
	case folder + ecrRole:
		k := e.roleKey()
		_ = json.NewEncoder(w).Encode(map[string]any{
			"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": e.now().UTC().Format(time.RFC3339),
			"AccessKeyId": k.ID, "SecretAccessKey": k.Secret, "Token": k.Session, "Expiration": k.Expires.UTC().Format(time.RFC3339),
		})
	default:
		http.NotFound(w, r)
	}
}

func (e *ECR) container(w http.ResponseWriter, r *http.Request) {
	e.note("container")
	if r.Header.Get("Authorization") != ecrContainerA {
		http.Error(w, `{"code":"AccessDenied","message":"wrong authorization"}`, http.StatusForbidden)
		return
	}
	k := e.roleKey()
	_ = json.NewEncoder(w).Encode(map[string]any{
		"RoleArn": ecrRoleARN, "AccessKeyId": k.ID, "SecretAccessKey": k.Secret, "Token": k.Session, "Expiration": k.Expires.UTC().Format(time.RFC3339),
	})
}

// sts answers AssumeRoleWithWebIdentity, which is not signed: the identity's
// token is what counts.
func (e *ECR) sts(w http.ResponseWriter, body []byte) {
	q, _ := url.ParseQuery(string(body))
	e.note("sts %s", q.Get("Action"))
	w.Header().Set("Content-Type", "text/xml")
	if q.Get("Action") != "AssumeRoleWithWebIdentity" || q.Get("WebIdentityToken") != e.identity || q.Get("RoleArn") != ecrRoleARN {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>The web identity token that was passed is not valid.</Message></Error><RequestId>1</RequestId></ErrorResponse>`)
		return
	}
	k := e.roleKey()
	fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>`+
		`<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>`+
		`<AssumedRoleUser><Arn>%s</Arn><AssumedRoleId>AROAFAKE:wherry</AssumedRoleId></AssumedRoleUser>`+
		`</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
		k.ID, k.Secret, k.Session, k.Expires.UTC().Format(time.RFC3339), ecrRoleARN)
}
