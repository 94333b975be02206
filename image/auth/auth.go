// Package auth answers: which credentials belong to a registry?
//
// It keeps none and talks to no registry. The Docker config file is read again
// for every question, so a `docker login` or a new token of a helper counts at
// the next pull. No environment variable is read; a credential helper is a
// program found in PATH, as Docker does it.
package auth

import (
	"fmt"
	"os"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// DockerConfig returns the credentials of the Docker config file at path: its
// auths, credsStore and credHelpers. An empty path, or no file, is anonymous.
func DockerConfig(path string) authn.Keychain { return dockerConfig(path) }

type dockerConfig string

// Resolve implements authn.Keychain.
func (d dockerConfig) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if d == "" {
		return authn.Anonymous, nil
	}
	f, err := os.Open(string(d))
	if os.IsNotExist(err) {
		return authn.Anonymous, nil
	}
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	defer f.Close()
	file, err := config.LoadFromReader(f)
	if err != nil {
		return nil, fmt.Errorf("credentials: %s: %w", string(d), err)
	}
	for _, key := range []string{r.String(), r.RegistryStr()} {
		if key == name.DefaultRegistry {
			key = authn.DefaultAuthKey
		}
		c, err := lookup(file, key)
		if err != nil {
			return nil, fmt.Errorf("credentials for %s: %w", r.RegistryStr(), err)
		}
		c.ServerAddress = ""
		if c != (types.AuthConfig{}) {
			return authn.FromConfig(authn.AuthConfig{
				Username: c.Username, Password: c.Password, Auth: c.Auth,
				IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
			}), nil
		}
	}
	return authn.Anonymous, nil
}

// lookup asks the helper named for key, the general one, or the file itself.
func lookup(file *configfile.ConfigFile, key string) (types.AuthConfig, error) {
	helper := file.CredentialsStore
	if h, ok := file.CredentialHelpers[key]; ok {
		helper = h
	}
	if helper == "" {
		return credentials.NewFileStore(file).Get(key)
	}
	return credentials.NewNativeStore(file, helper).Get(key)
}
