package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// DockerConfig returns the credentials of the Docker config file at path: its
// auths, credsStore and credHelpers. An empty path, or no file, is anonymous.
func DockerConfig(path string) authn.Keychain { return (&Files{}).DockerConfig(path) }

// DockerConfig is like the function, and warns of an open file.
func (f *Files) DockerConfig(path string) authn.Keychain { return &dockerConfig{f, path, true} }

type dockerConfig struct {
	files    *Files
	path     string
	optional bool // no file is no error
}

// Resolve implements authn.Keychain.
func (d *dockerConfig) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return d.ResolveContext(context.Background(), r)
}

// ResolveContext implements authn.ContextKeychain.
func (d *dockerConfig) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	if d.path == "" {
		return authn.Anonymous, nil
	}
	b, open, err := readFile(d.path, 4<<20)
	if d.optional && errors.Is(err, fs.ErrNotExist) {
		return authn.Anonymous, nil
	}
	var file dockerFile
	if err == nil {
		err = file.parse(b)
	}
	if err != nil {
		return nil, &Error{r.RegistryStr(), fmt.Errorf("%s: %w", d.path, err)}
	}
	if open && file.secrets() {
		d.files.warn(d.path)
	}
	return file.resolve(ctx, r, d.path)
}

// dockerFile is the part of Docker's config.json that is about credentials.
type dockerFile struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredsStore  string                `json:"credsStore"`
	CredHelpers map[string]string     `json:"credHelpers"`
}

type dockerAuth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// parse does not pass the decoder's error on: it may quote the file.
func (f *dockerFile) parse(b []byte) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	err := json.Unmarshal(b, f)
	switch {
	case err == nil, len(strings.TrimSpace(string(b))) == 0:
		return nil
	case errors.As(err, &syntax):
		return fmt.Errorf("not JSON, at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("key %s has the wrong type", kind.Field)
	}
	return errors.New("not a Docker config file")
}

func (f *dockerFile) secrets() bool {
	for _, a := range f.Auths {
		if a != (dockerAuth{}) {
			return true
		}
	}
	return false
}

// resolve asks the helper of the registry, then the general one, and takes what
// stands in the file itself if they have nothing.
func (f *dockerFile) resolve(ctx context.Context, r authn.Resource, path string) (authn.Authenticator, error) {
	host := r.RegistryStr()
	helper, key := f.CredsStore, "credsStore"
	for _, h := range hostNames(host) {
		if x, ok := f.CredHelpers[h]; ok {
			helper, key = x, "credHelpers"
			break
		}
	}
	if helper != "" {
		c, err := askHelper(ctx, helper, serverAddress(host))
		if err != nil {
			return nil, &Error{host, fmt.Errorf("%s in %s: %w", key, path, err)}
		}
		if c != (authn.AuthConfig{}) {
			return New(c, fmt.Sprintf("docker-credential-%s, %s in %s", helper, key, path)), nil
		}
	}
	entry, a, ok := f.entry(r)
	if !ok {
		return authn.Anonymous, nil
	}
	c, err := a.config()
	if err != nil {
		return nil, &Error{host, fmt.Errorf("%s: auths: %s: %w", path, entry, err)}
	}
	return New(c, path), nil
}

// entry finds what the file says of the repository, or of the closest folder
// above it, or of its host. containers-auth.json(5) has the rule.
func (f *dockerFile) entry(r authn.Resource) (key string, a dockerAuth, ok bool) {
	keys := map[string]string{} // as we ask for it, as it stands in the file
	for _, k := range slices.Sorted(maps.Keys(f.Auths)) {
		plain := plainKey(k)
		if _, taken := keys[plain]; !taken || k == plain {
			keys[plain] = k
		}
	}
	hosts := hostNames(r.RegistryStr())
	rest := strings.TrimPrefix(r.String(), r.RegistryStr())
	for {
		for _, h := range hosts {
			k, ok := keys[h+rest]
			if a := f.Auths[k]; ok && a != (dockerAuth{}) {
				return k, a, true
			}
		}
		if rest == "" {
			return "", dockerAuth{}, false
		}
		rest = rest[:max(0, strings.LastIndexByte(rest, '/'))]
	}
}

// plainKey turns keys of old Docker versions, "https://host/v1/", into hosts.
func plainKey(key string) string {
	_, after, isURL := strings.Cut(key, "://")
	if !isURL {
		after = key
	}
	host, path, _ := strings.Cut(strings.TrimSuffix(after, "/"), "/")
	if path == "v1" || path == "v2" || path == "" {
		return host
	}
	return after
}

// hostNames are the names under which a host may stand in the file. Docker Hub
// has had several.
func hostNames(host string) []string {
	if host == name.DefaultRegistry {
		return []string{host, "docker.io", authn.DefaultAuthKey, "registry-1.docker.io"}
	}
	return []string{host}
}

// serverAddress is what Docker asks a helper for.
func serverAddress(host string) string {
	if host == name.DefaultRegistry {
		return authn.DefaultAuthKey
	}
	return host
}

func (a dockerAuth) config() (authn.AuthConfig, error) {
	c := authn.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	if a.Auth == "" {
		return c, nil
	}
	b, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		b, err = base64.RawStdEncoding.DecodeString(a.Auth)
	}
	user, password, found := strings.Cut(string(b), ":")
	if err != nil || !found {
		return c, errors.New(`"auth" is not base64 of user:password`)
	}
	c.Username, c.Password = user, strings.TrimRight(password, "\x00") // old Docker versions pad with NUL
	return c, nil
}
