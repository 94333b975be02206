package imagetest

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The published example "get-vanilla" of AWS's Signature Version 4 test suite.
func TestSignatureOfTheTestSuite(t *testing.T) {
	const stamp = "20150830T123600Z"
	r := httptest.NewRequest(http.MethodGet, "http://example.amazonaws.com/", nil)
	r.Header.Set("X-Amz-Date", stamp)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")
	at, err := time.Parse(sigTime, stamp)
	if err != nil {
		t.Fatal(err)
	}
	e := &ECR{offset: time.Until(at), keys: map[string]Key{"AKIDEXAMPLE": {Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}}}
	if s, code, message := e.verify(r, nil, "service"); code != "" || s.region != "us-east-1" {
		t.Error(s, code, message)
	}
	for what, change := range map[string]func(*http.Request, *ECR){
		"path":    func(r *http.Request, _ *ECR) { r.URL.Path = "/x" },
		"query":   func(r *http.Request, _ *ECR) { r.URL.RawQuery = "a=b" },
		"method":  func(r *http.Request, _ *ECR) { r.Method = http.MethodPost },
		"host":    func(r *http.Request, _ *ECR) { r.Host = "other.example" },
		"session": func(r *http.Request, _ *ECR) { r.Header.Set("X-Amz-Security-Token", "x") },
		"old":     func(_ *http.Request, e *ECR) { e.offset += 6 * time.Minute },
		"early":   func(_ *http.Request, e *ECR) { e.offset -= 6 * time.Minute },
		"none":    func(r *http.Request, _ *ECR) { r.Header.Del("Authorization") },
		"key":     func(_ *http.Request, e *ECR) { e.keys = nil },
		"expired": func(_ *http.Request, e *ECR) {
			k := e.keys["AKIDEXAMPLE"]
			k.Expires = e.now().Add(-time.Second)
			e.keys = map[string]Key{"AKIDEXAMPLE": k}
		},
	} {
		changed, other := r.Clone(t.Context()), &ECR{offset: e.offset, keys: e.keys}
		change(changed, other)
		if _, code, _ := other.verify(changed, nil, "service"); code == "" {
			t.Errorf("%s: the signature still counts", what)
		}
	}
	if _, code, _ := e.verify(r, []byte("body"), "service"); code == "" {
		t.Error("a body may be added")
	}
	if _, code, _ := e.verify(r, nil, "other"); code == "" {
		t.Error("another service takes it")
	}
}

func TestFrontTakesOnlyGoodTokens(t *testing.T) {
	e := StartECR()
	defer e.Close()
	e.tokens["good"] = ecrToken{"eu-west-1", time.Now().Add(time.Hour)}
	front := e.Front(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the registry sees the token")
		}
	}))
	ask := func(host, user, password string) int {
		r := httptest.NewRequest(http.MethodGet, "https://"+host+"/v2/", nil)
		if user != "" {
			r.SetBasicAuth(user, password)
		}
		w := httptest.NewRecorder()
		front.ServeHTTP(w, r)
		if (w.Code == http.StatusUnauthorized) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Error(w.Code, w.Header())
		}
		return w.Code
	}
	const ours = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	for _, tc := range []struct {
		host, user, password string
		want                 int
	}{
		{ours, "", "", 401},
		{ours, "AWS", "good", 200},
		{ours, "AWS", "bad", 403},
		{ours, "me", "good", 403},
		{"123456789012.dkr-ecr.eu-west-1.on.aws:443", "AWS", "good", 200},
		{"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "AWS", "good", 403},
		{"127.0.0.1:5000", "AWS", "good", 200},
	} {
		if got := ask(tc.host, tc.user, tc.password); got != tc.want {
			t.Errorf("%s %s:%s: %d, want %d", tc.host, tc.user, tc.password, got, tc.want)
		}
	}
	e.ExpireTokens()
	if got := ask(ours, "AWS", "good"); got != 403 {
		t.Error(got)
	}
}

func TestProxyLeadsEveryHostToTheHandler(t *testing.T) {
	p, err := StartProxy(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host+r.URL.Path) }))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.CA)
	at, _ := url.Parse(p.URL)
	tr := &http.Transport{Proxy: http.ProxyURL(at), TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer tr.CloseIdleConnections()
	for _, host := range []string{"a.example", "b.example:8443"} {
		resp, err := (&http.Client{Transport: tr}).Get("https://" + host + "/x")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != host+"/x" {
			t.Error(string(b), err)
		}
	}
	if got := strings.Join(p.Hosts(), " "); got != "a.example:443 b.example:8443" {
		t.Error(got)
	}
}
