package unit

import (
	"path"
	"slices"
	"strings"
)

// leastQuota leaves room for what every container writes at its start.
const leastQuota = 1 << 20

func parseQuota(text string) (int64, error) {
	bytes, err := ParseSize(text)
	if err == nil && bytes < leastQuota {
		err = faultf("the least is "+Size(leastQuota).String(), "%s is too little", text)
	}
	return bytes, err
}

// storageTable is Compose's storage_opt.
var storageTable = table[StorageOpt]{fields: []field[StorageOpt]{
	known("size", "size", "no bound", "How much it may write; the host's file system must have project quotas.", func(p *reader, n *node, s *StorageOpt) {
		s.Size, _ = parsed(p, n, parseQuota)
	}),
}}

// registryAuthTable is where credentials come from.
var registryAuthTable = table[RegistryAuth]{
	fields: []field[RegistryAuth]{
		known("username", "text", "", "The user, with password_file.", func(p *reader, n *node, a *RegistryAuth) { a.Username, _ = p.text(n) }),
		known("password_file", "path", "", "The file with the password; relative to the unit file.", func(p *reader, n *node, a *RegistryAuth) {
			a.PasswordFile = p.hostPath(n)
		}),
		known("token_file", "path", "", "The file with a bearer token of the registry.", func(p *reader, n *node, a *RegistryAuth) {
			a.TokenFile = p.hostPath(n)
		}),
		known("docker_config", "path", "", "A Docker config.json.", func(p *reader, n *node, a *RegistryAuth) {
			a.DockerConfig = p.hostPath(n)
		}),
		known("helper", "word", "", "X for the credential helper docker-credential-X.", func(p *reader, n *node, a *RegistryAuth) {
			a.Helper, _ = parsed(p, n, parseHelper)
		}),
	},
	elsewhere: map[string]string{
		"password": "secrets stand in files: write password_file", "token": "secrets stand in files: write token_file",
		"user": "write username", "config": "write docker_config", "credsStore": "write helper", "credHelpers": "write helper",
	},
}

func (p *reader) setRegistryAuth(n *node, d *draft) {
	before := len(p.errs)
	var a RegistryAuth
	registryAuthTable.fill(p, n, &a)
	if len(p.errs) > before {
		return
	}
	if a == (RegistryAuth{}) {
		p.badf(n, "write username and password_file, or token_file, docker_config or helper", "names no credentials")
	} else if err := a.Check(); err != nil {
		p.bad(n, err)
	}
	d.app.RegistryAuth = a
}

// Check tells what is wrong with credentials as a whole. To have none is right.
func (a RegistryAuth) Check() error {
	var kinds []string
	for _, k := range []struct{ name, value string }{
		{"username and password_file", a.Username + a.PasswordFile}, {"token_file", a.TokenFile},
		{"docker_config", a.DockerConfig}, {"helper", a.Helper},
	} {
		if k.value != "" {
			kinds = append(kinds, k.name)
		}
	}
	switch {
	case len(kinds) > 1:
		return faultf("keep one of them", "%s exclude each other", strings.Join(kinds, " and "))
	case a.Username == "" && a.PasswordFile != "":
		return faultf("", "username is missing")
	case a.Username != "" && a.PasswordFile == "":
		return faultf("", "password_file is missing")
	}
	for _, file := range []string{a.PasswordFile, a.TokenFile, a.DockerConfig} {
		if file != "" && !path.IsAbs(file) {
			return faultf("", "%q is not an absolute path", file)
		}
	}
	if a.Helper != "" {
		_, err := parseHelper(a.Helper)
		return err
	}
	return nil
}

// hostPath reads a path of the host, relative to the unit file.
func (p *reader) hostPath(n *node) string {
	text, ok := p.word(n)
	if !ok {
		return ""
	}
	var v Volume // the same rules as for the sources of binds
	err := v.path(text, p.dir())
	if strings.HasPrefix(text, "~") {
		err = faultf("write the path out", "%q: ~ is nobody's home here", text)
	}
	if err != nil {
		p.bad(n, err)
		return ""
	}
	return v.Source
}

// parseHelper keeps what becomes the name of a program from naming any other.
func parseHelper(text string) (string, error) {
	name := strings.TrimPrefix(text, "docker-credential-")
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || slices.Contains([]rune("-_."), r))
	}
	if name == "" || strings.ContainsFunc(name, odd) || strings.HasPrefix(name, ".") {
		return "", faultf("X stands for docker-credential-X", "%q is not the name of a credential helper", text)
	}
	return name, nil
}
