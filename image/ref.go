package image

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
)

// reference is a parsed image name.
type reference struct {
	name.Reference
}

// registryName is a host as image names have it (distribution's reference grammar);
// the parser takes nearly everything.
var registryName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9]+(-+[a-zA-Z0-9]+)*(\.[a-zA-Z0-9]+(-+[a-zA-Z0-9]+)*)*)(:[0-9]{1,5})?$`)
})

// repositoryPath is what registries accept; the parser is more generous. It is
// compiled when it is needed: the command line, which only links it, starts
// faster.
var repositoryPath = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
})

// parseRef reads a name as Docker users write it.
func (s *Store) parseRef(ref string) (reference, error) {
	r, err := name.ParseReference(ref, name.WeakValidation)
	if err != nil || !repositoryPath().MatchString(r.Context().RepositoryStr()) || !registryName().MatchString(r.Context().RegistryStr()) {
		return reference{}, fmt.Errorf("%w: %q%s", ErrInvalid, ref, usualMistake(ref))
	}
	if slices.Contains(s.registries.Load().insecure, r.Context().RegistryStr()) {
		r, err = name.ParseReference(ref, name.WeakValidation, name.Insecure)
	}
	return reference{r}, err
}

// usualMistake is what is mostly wrong with a name that cannot be read; "" is no idea.
func usualMistake(ref string) string {
	name, digest, pinned := strings.Cut(ref, "@")
	_, path, _ := strings.Cut(name, "/")
	path, _, _ = strings.Cut(path, ":")
	switch {
	case strings.Contains(ref, "://"):
		return ": a name begins with the host, without a scheme"
	case pinned && !wholeDigest().MatchString(digest):
		return ": after @ come sha256: and 64 hexadecimal digits"
	case path != strings.ToLower(path), !strings.Contains(name, "/") && name != strings.ToLower(name):
		return ": a repository is written in lower case"
	}
	return ""
}

var wholeDigest = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^sha256:[0-9a-f]{64}$`) })

// String is the normalised name, "docker.io/library/nginx:latest".
func (r reference) String() string {
	sep := ":"
	if _, ok := r.Reference.(name.Digest); ok {
		sep = "@"
	}
	return r.repository() + sep + r.Identifier()
}

func (r reference) repository() string {
	host := r.Context().RegistryStr()
	if host == name.DefaultRegistry {
		host = "docker.io"
	}
	return host + "/" + r.Context().RepositoryStr()
}

// digest is the digest in the name, "" if it has a tag.
func (r reference) digest() string {
	if d, ok := r.Reference.(name.Digest); ok {
		return d.DigestStr()
	}
	return ""
}
