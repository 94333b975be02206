package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// anyHost is the name under which all registries stand that have none of their own.
const anyHost = "*"

// registryKeys say how one registry is spoken to.
var registryKeys = []key[image.Registry]{
	{name: "mirrors", missing: "none; hosts or URLs that are asked first", set: setMirrors},
	{name: "ca", missing: "none; a PEM file of certificates beside the system's", set: file(func(r *image.Registry) *string { return &r.CA }, checkCA)},
	{name: "cert", missing: "none; a PEM file of a client certificate", set: file(func(r *image.Registry) *string { return &r.Cert }, nil)},
	{name: "key", missing: "in the file of cert", set: file(func(r *image.Registry) *string { return &r.Key }, nil)},
	{name: "insecure", missing: "false; true is plain HTTP, which loopback may always be", set: func(r *image.Registry, n node, p *problems) { n.boolean(p, &r.Insecure) }},
	{name: "proxy", missing: "HTTPS_PROXY and the like; a URL, or none", set: setProxy},
	{name: "credentials", set: setCredentials, below: below("credentials", credentialKeys)},
	{name: "policy", missing: "that of HOST \"*\", else accept; or digest, reject, a list of rules", set: setPolicy},
}

func setRegistries(c *Config, n node, p *problems) {
	for _, child := range n.pairs(p) {
		host := child.key
		if what, hint := notHost(host); what != "" {
			p.add(child.place(), what, hint)
			continue
		}
		var r image.Registry
		before := len(p.errors)
		fill(p, child, registryKeys, &r)
		if len(p.errors) == before {
			checkRegistry(host, r, child.place(), p)
		}
		c.Registries[host] = r
	}
}

// notHost says what is wrong with the name of a registry.
func notHost(host string) (what, hint string) {
	switch {
	case host == anyHost:
	case strings.Contains(host, "://"):
		u, _ := url.Parse(host)
		if u != nil {
			hint = "write " + u.Host
		}
		return fmt.Sprintf("%q is a URL, not a host", host), hint
	case slices.Contains([]string{"index.docker.io", "registry-1.docker.io", "hub.docker.com"}, host):
		return fmt.Sprintf("%q: images of Docker Hub are named docker.io", host), "write docker.io"
	case host == "" || strings.ContainsAny(host, "/@ \t*"):
		return fmt.Sprintf("%q is not a host", host), "write it like r.example.com or host:5000; \"*\" is for all others"
	}
	return "", ""
}

// checkRegistry finds what does not fit together.
func checkRegistry(host string, r image.Registry, at node, p *problems) {
	switch {
	case r.Key != "" && r.Cert == "":
		p.add(at, "key has no cert that it belongs to", "")
	case r.Insecure && r.CA+r.Cert != "":
		p.add(at, "insecure is plain HTTP, which has no certificates", "leave ca and cert out, or insecure")
	case r.Cert != "":
		key := r.Key
		if key == "" {
			key = r.Cert
		}
		if _, err := tls.LoadX509KeyPair(r.Cert, key); err != nil {
			p.add(at, fmt.Sprintf("cert and key: %v", withoutCall(err)), "")
		}
	}
	// A password goes to the registry that it is for, never to whatever a name leads to.
	if c := r.Credentials; host == anyHost && c != nil && c.DockerConfig == "" && c.Helper == "" {
		p.add(at, "credentials for all registries would be sent to any", "name the registry, or use docker_config or helper")
	}
}

func setMirrors(r *image.Registry, n node, p *problems) {
	for _, item := range n.items(p) {
		var s string
		if !item.text(p, &s) {
			continue
		}
		u, err := url.Parse(s)
		if !strings.Contains(s, "://") {
			u, err = url.Parse("https://" + s)
		}
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery+u.Fragment != "" || u.User != nil {
			p.add(item, fmt.Sprintf("%q is not a mirror", s), "write host, host/prefix or https://host/prefix")
			continue
		}
		r.Mirrors = append(r.Mirrors, s)
	}
}

func setProxy(r *image.Registry, n node, p *problems) {
	var s string
	if !n.text(p, &s) {
		return
	}
	u, err := url.Parse(s)
	if s != "none" && (err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme)) {
		p.add(n, fmt.Sprintf("%q is not a proxy", s), "write http://host:3128 or none")
		return
	}
	r.Proxy = s
}

// file is a path of a file that must be there, and right.
func file(field func(*image.Registry) *string, check func([]byte) error) func(*image.Registry, node, *problems) {
	return func(r *image.Registry, n node, p *problems) {
		if !n.path(p, field(r)) {
			return
		}
		b, err := os.ReadFile(*field(r))
		if err == nil && check != nil {
			err = check(b)
		}
		if err != nil {
			p.add(n, fmt.Sprintf("%s: %v", *field(r), withoutCall(err)), "")
		}
	}
}

func checkCA(pem []byte) error {
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return errors.New("no PEM certificate in it")
	}
	return nil
}

// withoutCall leaves call and path out of an error of a file.
func withoutCall(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// credentialKeys are those of a unit's registry_auth.
var credentialKeys = []key[unit.RegistryAuth]{
	{name: "username", missing: "none; with password_file", set: func(a *unit.RegistryAuth, n node, p *problems) { n.text(p, &a.Username) }},
	{name: "password_file", missing: "none; secrets stand in files, read at every pull", set: secret(func(a *unit.RegistryAuth) *string { return &a.PasswordFile })},
	{name: "token_file", missing: "none; a bearer token", set: secret(func(a *unit.RegistryAuth) *string { return &a.TokenFile })},
	{name: "docker_config", missing: "none; a Docker config.json", set: secret(func(a *unit.RegistryAuth) *string { return &a.DockerConfig })},
	{name: "helper", missing: "none; X for docker-credential-X", set: func(a *unit.RegistryAuth, n node, p *problems) { n.text(p, &a.Helper) }},
}

// secret is the path of a file that is read at every pull.
func secret(field func(*unit.RegistryAuth) *string) func(*unit.RegistryAuth, node, *problems) {
	return func(a *unit.RegistryAuth, n node, p *problems) {
		if n.path(p, field(a)) {
			p.readable(n, *field(a))
		}
	}
}

// readable warns of a file that cannot be read now.
func (p *problems) readable(n node, path string) {
	f, err := os.Open(path)
	if err != nil {
		p.warn(n, fmt.Sprintf("%s: %v", path, withoutCall(err)), "")
		return
	}
	f.Close()
}

func setCredentials(r *image.Registry, n node, p *problems) {
	var a unit.RegistryAuth
	before := len(p.errors)
	for _, child := range n.pairs(p) {
		if child.key == "password" || child.key == "token" {
			p.add(child.place(), fmt.Sprintf("unknown key %q", child.key), "secrets stand in files: write "+child.key+"_file")
			continue
		}
		one(p, child, credentialKeys, &a)
	}
	if len(p.errors) > before {
		return
	}
	if a == (unit.RegistryAuth{}) {
		p.add(n, "names no credentials", "write username and password_file, or token_file, docker_config or helper")
		return
	}
	if err := a.Check(); err != nil {
		p.add(n, err.Error(), "")
		return
	}
	a.Helper = strings.TrimPrefix(a.Helper, "docker-credential-")
	c := image.Credentials(a)
	r.Credentials = &c
}
