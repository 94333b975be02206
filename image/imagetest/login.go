package imagetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// Login is what a registry asks for before it answers: basic authentication, as
// with an htpasswd file, or tokens from a token service (distribution spec, token
// authentication), which the registry's own /token is.
type Login struct {
	User, Password string
	IdentityToken  string // also accepted, by OAuth2
	Basic          bool
	Anonymous      bool // tokens are given to everybody, as on Docker Hub
	ExpiresIn      int  // seconds, as the token service says; 0: it does not say
	Uses           int  // requests that a token is good for; 0: any number

	// Realm is where the token service is; empty: /token on the host that was
	// asked. A Login is a handler too, and so can be another host's.
	Realm string

	mu     sync.Mutex
	tokens map[string]*issued
	asked  []string
	next   int
}

// issued is a token that was given out.
type issued struct {
	scope string
	uses  int
}

// Expire makes all tokens invalid that were given out.
func (l *Login) Expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = nil
}

// SetPassword changes the password. Tokens stay good.
func (l *Login) SetPassword(password string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Password = password
}

// Asked returns what the token service was asked for so far, as "METHOD SCOPE".
func (l *Login) Asked() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.asked...)
}

// ServeHTTP is the token service.
func (l *Login) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	scope := q.FormValue("scope")
	l.asked = append(l.asked, q.Method+" "+scope)
	user, password, given := q.BasicAuth()
	right := given && user == l.User && password == l.Password || !given && l.Anonymous
	if q.Method == http.MethodPost {
		if l.IdentityToken == "" {
			http.NotFound(w, q)
			return
		}
		right = q.PostFormValue("grant_type") == "refresh_token" && q.PostFormValue("refresh_token") == l.IdentityToken
	}
	if !right || q.FormValue("service") != "imagetest" {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`, http.StatusUnauthorized)
		return
	}
	l.next++
	value := fmt.Sprintf("token-%d", l.next)
	if l.tokens == nil {
		l.tokens = map[string]*issued{}
	}
	l.tokens[value] = &issued{scope: scope, uses: l.Uses}
	answer := map[string]any{"token": value}
	if q.Method == http.MethodPost {
		answer = map[string]any{"access_token": value, "refresh_token": l.IdentityToken}
	}
	if l.ExpiresIn != 0 {
		answer["expires_in"] = l.ExpiresIn
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// admit lets a request in, or says what is wanted.
func (l *Login) admit(w http.ResponseWriter, q *http.Request) bool {
	if q.URL.Path == "/token" && !l.Basic && l.Realm == "" {
		l.ServeHTTP(w, q)
		return false
	}
	if l.right(q) {
		return true
	}
	scheme := "http"
	if q.TLS != nil {
		scheme = "https"
	}
	realm := l.Realm
	if realm == "" {
		realm = scheme + "://" + q.Host + "/token"
	}
	challenge := fmt.Sprintf(`Bearer realm=%q,service="imagetest"`, realm)
	if repo, ok := repositoryOf(q.URL.Path); ok {
		challenge += fmt.Sprintf(`,scope="repository:%s:pull"`, repo)
	}
	if l.Basic {
		challenge = `Basic realm="imagetest"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
	return false
}

func (l *Login) right(q *http.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Basic {
		user, password, given := q.BasicAuth()
		return given && user == l.User && password == l.Password
	}
	value, ok := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
	t := l.tokens[value]
	if !ok || t == nil {
		return false
	}
	if repo, ok := repositoryOf(q.URL.Path); ok && !strings.Contains(t.scope, "repository:"+repo+":pull") {
		return false
	}
	if t.uses--; t.uses == 0 {
		delete(l.tokens, value)
	}
	return true
}

// repositoryOf is the repository in a path of the API.
func repositoryOf(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	for _, kind := range []string{"/manifests/", "/blobs/", "/referrers/", "/tags/"} {
		if i := strings.LastIndex(rest, kind); ok && i > 0 {
			return rest[:i], true
		}
	}
	return "", false
}
