package imagetest

import (
	"fmt"
	"net"
	"net/http"
	"strings"
)

// Front stands before a registry such as a Registry, and lets in only who has a
// token that is good at the moment, as a registry of ECR does: 401 without one,
// 403 with an old one or one of another region.
func (e *ECR) Front(registry http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, given := r.BasicAuth()
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		switch {
		case !given:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Basic realm="https://%s/",service="ecr.amazonaws.com"`, r.Host))
			http.Error(w, "Not Authorized", http.StatusUnauthorized)
		case user != "AWS" || !e.good(password, r.Host):
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintln(w, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`)
		default:
			r.Header.Del("Authorization")
			registry.ServeHTTP(w, r)
		}
	})
}

func (e *ECR) good(password, host string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, ok := e.tokens[password]
	if !ok || !e.now().Before(t.expires) {
		return false
	}
	region, private := ecrRegion(host)
	return !private || region == t.region
}

// ecrRegion is the region in the name of a private registry.
func ecrRegion(host string) (region string, ok bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, rest, ok := strings.Cut(host, ".dkr")
	labels := strings.Split(rest, ".")
	if !ok || len(labels) < 2 {
		return "", false
	}
	if labels[0] == "" { // .dkr.ecr.REGION; else .dkr-ecr.REGION
		labels = labels[1:]
	}
	return labels[1], true
}
