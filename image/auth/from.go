package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Credentials say where a registry's credentials come from; one of the kinds is
// set.
type Credentials struct {
	Username     string // with PasswordFile
	PasswordFile string // path; one line end at its end does not count
	TokenFile    string // path of a bearer token for the registry
	DockerConfig string // path of a Docker config.json
	Helper       string // X for the credential helper docker-credential-X
}

// Check tells whether exactly one kind is set, and rightly.
func (c Credentials) Check() error {
	kinds := 0
	for _, set := range []bool{c.Username != "" || c.PasswordFile != "", c.TokenFile != "", c.DockerConfig != "", c.Helper != ""} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		return errors.New("nothing is set: one of username with password_file, token_file, docker_config, helper is needed")
	case kinds > 1:
		return errors.New("only one of username with password_file, token_file, docker_config, helper can be set")
	case (c.Username == "") != (c.PasswordFile == ""):
		return errors.New("username and password_file need each other")
	case strings.ContainsFunc(c.Username, func(r rune) bool { return r == ':' || unicode.IsControl(r) }):
		return fmt.Errorf("username %q has a colon or a control character", c.Username)
	case c.Helper != "":
		return helperName(c.Helper)
	}
	return nil
}

// Files reads files with secrets, and warns once of each that everybody may
// read. The zero value is ready and warns nobody.
type Files struct {
	Logger *slog.Logger // nil: discards

	mu     sync.Mutex
	warned map[string]bool
}

// From returns a keychain that reads what c names, anew for each question. It
// gives the same credentials for every registry, except that a Docker config or
// a helper may have none for one.
func (f *Files) From(c Credentials) authn.Keychain {
	switch {
	case c.Check() != nil:
		return broken{c.Check()}
	case c.DockerConfig != "":
		return &dockerConfig{f, c.DockerConfig, false}
	}
	return &single{f, c}
}

// From is Files.From without warnings.
func From(c Credentials) authn.Keychain { return (&Files{}).From(c) }

type broken struct{ err error }

// Resolve implements authn.Keychain.
func (b broken) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return nil, &Error{r.RegistryStr(), b.err}
}

// single is one password, token or helper.
type single struct {
	files *Files
	c     Credentials
}

// Resolve implements authn.Keychain.
func (s *single) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return s.ResolveContext(context.Background(), r)
}

// ResolveContext implements authn.ContextKeychain.
func (s *single) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	c, from, err := s.read(ctx, r.RegistryStr())
	switch {
	case err != nil:
		return nil, &Error{r.RegistryStr(), err}
	case c == (authn.AuthConfig{}):
		return authn.Anonymous, nil
	}
	return New(c, from), nil
}

func (s *single) read(ctx context.Context, host string) (c authn.AuthConfig, from string, err error) {
	switch {
	case s.c.PasswordFile != "":
		c.Username = s.c.Username
		c.Password, err = s.files.secret("password_file", s.c.PasswordFile)
		return c, "password_file " + s.c.PasswordFile, err
	case s.c.TokenFile != "":
		c.RegistryToken, err = s.files.secret("token_file", s.c.TokenFile)
		return c, "token_file " + s.c.TokenFile, err
	}
	c, err = askHelper(ctx, s.c.Helper, serverAddress(host))
	return c, helperPrefix + s.c.Helper, err
}

// secret reads a file of one line.
func (f *Files) secret(key, path string) (string, error) {
	b, open, err := readFile(path, 64<<10)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", key, path, err)
	}
	if open {
		f.warn(path)
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case s == "":
		return "", fmt.Errorf("%s %s: the file is empty", key, path)
	case strings.ContainsFunc(s, unicode.IsControl):
		return "", fmt.Errorf("%s %s: the file has more than one line, or control characters", key, path)
	}
	return s, nil
}

// readFile reads a regular file; a pipe would let a pull hang. open tells
// whether everybody may read it.
func readFile(path string, limit int64) (b []byte, open bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, false, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false, cause(err)
	}
	defer f.Close()
	if b, err = io.ReadAll(io.LimitReader(f, limit+1)); err != nil {
		return nil, false, cause(err)
	}
	if int64(len(b)) > limit {
		return nil, false, fmt.Errorf("the file is larger than %d KiB", limit>>10)
	}
	return b, info.Mode()&0o004 != 0 && reachable(filepath.Dir(path)), nil
}

// cause takes the path away: the caller names it.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// reachable tells whether everybody may pass the folder and those above it.
func reachable(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir || dir == "." {
			return true
		}
		dir = up
	}
}

func (f *Files) warn(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Logger == nil || f.warned[path] {
		return
	}
	if f.warned == nil {
		f.warned = map[string]bool{}
	}
	f.warned[path] = true
	f.Logger.Warn("a file with registry credentials can be read by everybody; chmod 600 closes it", "file", path)
}
