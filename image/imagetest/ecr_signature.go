package imagetest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	sigTime      = "20060102T150405Z"
	sigSkew      = 5 * time.Minute // AWS refuses what is further from its clock
)

// signature is what an Authorization header of AWS's version 4 says.
type signature struct {
	keyID, date, region, service string
	headers                      []string
	hex                          string
}

// verify checks the signature of a request, by the text of "Signature Version 4
// signing process" in the IAM user guide and by nothing of an SDK. It returns the
// error code that AWS would answer with; empty: all is well.
func (e *ECR) verify(r *http.Request, body []byte, service string) (s signature, code, message string) {
	s, ok := parseSignature(r.Header.Get("Authorization"))
	if !ok {
		return s, "MissingAuthenticationTokenException", "Request is missing Authentication Token"
	}
	k, ok := e.keys[s.keyID]
	if !ok {
		return s, "UnrecognizedClientException", "The security token included in the request is invalid."
	}
	if k.Session != r.Header.Get("X-Amz-Security-Token") {
		return s, "UnrecognizedClientException", "The security token included in the request is invalid."
	}
	if !k.Expires.IsZero() && e.now().After(k.Expires) {
		return s, "ExpiredTokenException", "The security token included in the request is expired"
	}
	must := []string{"host", "x-amz-date"}
	if k.Session != "" {
		must = append(must, "x-amz-security-token")
	}
	for _, h := range must {
		if !slices.Contains(s.headers, h) {
			return s, "InvalidSignatureException", h + " must be signed"
		}
	}
	stamp := r.Header.Get("X-Amz-Date")
	at, err := time.Parse(sigTime, stamp)
	switch off := at.Sub(e.now()); {
	case err != nil || s.date != stamp[:8] || s.service != service:
		return s, "InvalidSignatureException", "Credential should be scoped to a valid date and service."
	case off > sigSkew:
		return s, "InvalidSignatureException", "Signature not yet current: " + stamp
	case off < -sigSkew:
		return s, "InvalidSignatureException", "Signature expired: " + stamp
	}
	if s.hex != s.sign(k.Secret, stamp, canonicalRequest(r, body, s.headers)) {
		return s, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided."
	}
	return s, "", ""
}

func parseSignature(header string) (s signature, ok bool) {
	rest, ok := strings.CutPrefix(header, sigAlgorithm+" ")
	if !ok {
		return s, false
	}
	for part := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "Credential":
			f := strings.Split(value, "/")
			if len(f) != 5 || f[4] != "aws4_request" {
				return s, false
			}
			s.keyID, s.date, s.region, s.service = f[0], f[1], f[2], f[3]
		case "SignedHeaders":
			s.headers = strings.Split(value, ";")
		case "Signature":
			s.hex = value
		}
	}
	return s, s.keyID != "" && len(s.headers) > 0 && s.hex != ""
}

// sign is the signature that the request should have.
func (s signature) sign(secret, stamp, canonical string) string {
	scope := strings.Join([]string{s.date, s.region, s.service, "aws4_request"}, "/")
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.date, s.region, s.service, "aws4_request"} {
		key = sum256(key, part)
	}
	return hex.EncodeToString(sum256(key, strings.Join([]string{sigAlgorithm, stamp, scope, hash256([]byte(canonical))}, "\n")))
}

func sum256(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func hash256(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// canonicalRequest is what is signed. A server of Go moves two headers away.
func canonicalRequest(r *http.Request, body []byte, signed []string) string {
	var headers strings.Builder
	for _, h := range signed {
		values := r.Header.Values(h)
		switch h {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		for i, v := range values {
			values[i] = strings.Join(strings.Fields(v), " ")
		}
		fmt.Fprintf(&headers, "%s:%s\n", h, strings.Join(values, ","))
	}
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	return strings.Join([]string{r.Method, path, canonicalQuery(r.URL.Query()), headers.String(), strings.Join(signed, ";"), hash256(body)}, "\n")
}

func canonicalQuery(q url.Values) string {
	var pairs []string
	for k, vs := range q {
		for _, v := range vs {
			pairs = append(pairs, awsEscape(k)+"="+awsEscape(v))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// awsEscape knows no plus sign for a blank.
func awsEscape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
