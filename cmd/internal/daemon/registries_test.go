package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// keysAndCerts makes cert.pem with its key.pem, both.pem with both, pub.pem and
// other.pem, a key of nobody's certificate.
func keysAndCerts(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, blocks ...*pem.Block) {
		var b []byte
		for _, x := range blocks {
			b = append(b, pem.EncodeToMemory(x)...)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	private := func(k *ecdsa.PrivateKey) *pem.Block {
		b, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return &pem.Block{Type: "PRIVATE KEY", Bytes: b}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert := &pem.Block{Type: "CERTIFICATE", Bytes: raw}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	write("cert.pem", cert)
	write("key.pem", private(key))
	write("both.pem", cert, private(key))
	write("other.pem", private(other))
	write("pub.pem", &pem.Block{Type: "PUBLIC KEY", Bytes: public})
	write("password")
	return dir
}

// parse reads text in which DIR stands for a folder.
func parse(text, dir string) (Config, error) {
	c := defaults(noEnv)
	err := parseConfig("w.yaml", []byte(strings.ReplaceAll(text, "DIR", dir)), &c)
	return c, err
}

func TestEveryKeyOfARegistry(t *testing.T) {
	dir := keysAndCerts(t)
	c, err := parse(`
registries:
  r.example.com:5000:
    mirrors: [mirror.example.com, "cache:5000/proxy", "http://10.0.0.1:5000/hub"]
    ca: DIR/cert.pem
    cert: DIR/cert.pem
    key: DIR/key.pem
    proxy: http://proxy:3128
    credentials: {username: me, password_file: DIR/password}
    policy:
      - {repository: team/**, require: signed, signers: [{key: DIR/pub.pem}]}
      - reject
  docker.io: {proxy: none, policy: digest, credentials: {helper: docker-credential-pass}}
  plain: {insecure: true, policy: {require: accept}}
  10.0.0.1:5000: {insecure: true}
  one: {cert: DIR/both.pem, credentials: {token_file: DIR/password}}
  "*": {policy: [{repository: "library/*", require: accept}, digest], credentials: {docker_config: DIR/password}}
layers: folder
gc: {high: 90%, low: 70, min_age: 36h, keep_revisions: 3, reserve: 2GiB}
`, dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]image.Registry{
		"r.example.com:5000": {Mirrors: []string{"mirror.example.com", "cache:5000/proxy", "http://10.0.0.1:5000/hub"},
			CA: dir + "/cert.pem", Cert: dir + "/cert.pem", Key: dir + "/key.pem", Proxy: "http://proxy:3128",
			Credentials: &image.Credentials{Username: "me", PasswordFile: dir + "/password"},
			Policy: []image.TrustRule{{Repository: "team/**", Require: image.Signed, Signers: []image.Signer{{Key: dir + "/pub.pem"}}},
				{Require: image.Reject}}},
		"docker.io":     {Proxy: "none", Policy: []image.TrustRule{{Require: image.Digests}}, Credentials: &image.Credentials{Helper: "pass"}},
		"plain":         {Insecure: true, Policy: []image.TrustRule{{Require: image.Accept}}},
		"10.0.0.1:5000": {Insecure: true},
		"one":           {Cert: dir + "/both.pem", Credentials: &image.Credentials{TokenFile: dir + "/password"}},
		"*": {Policy: []image.TrustRule{{Repository: "library/*", Require: image.Accept}, {Require: image.Digests}},
			Credentials: &image.Credentials{DockerConfig: dir + "/password"}},
	}
	o := c.Options("")
	if !reflect.DeepEqual(o.Registries, want) {
		t.Errorf("%+v\nwant %+v", o.Registries, want)
	}
	if o.Layers != image.Folder || o.Reserve != 2<<30 || o.GC != (supervisor.GC{High: 90, Low: 70, MinAge: 36 * time.Hour, KeepRevisions: 3}) {
		t.Errorf("%q %d %+v", o.Layers, o.Reserve, o.GC)
	}
	// What the file's reader lets through, the store takes.
	check := image.Options{Root: t.TempDir(), Registries: o.Registries}
	if err := check.Check(); err != nil {
		t.Error(err)
	}
}

func TestMarksOfGC(t *testing.T) {
	for text, want := range map[string]supervisor.GC{
		"":                           {High: 85, Low: 80, MinAge: time.Hour, KeepRevisions: 5},
		"gc: {high: 70}":             {High: 70, Low: 65, MinAge: time.Hour, KeepRevisions: 5},
		"gc: {low: 50, min_age: 0s}": {High: 85, Low: 50, MinAge: -1, KeepRevisions: 5},
	} {
		if c, err := parse(text, ""); err != nil || c.GC != want {
			t.Errorf("%q: %+v, %v", text, c.GC, err)
		}
	}
	if c, err := parse("gc: {reserve: 0}", ""); err != nil || c.Reserve != -1 {
		t.Errorf("no reserve: %d, %v", c.Reserve, err)
	}
}

func TestFaultyRegistries(t *testing.T) {
	dir := keysAndCerts(t)
	for text, want := range map[string]string{
		`"https://r.example.com": {}`:                                  `w.yaml:2:3: "https://r.example.com" is a URL, not a host, write r.example.com`,
		`registry-1.docker.io: {}`:                                     `images of Docker Hub are named docker.io, write docker.io`,
		`r/team: {}`:                                                   `w.yaml:2:3: "r/team" is not a host`,
		`r: {mirors: []}`:                                              `w.yaml:2:7: unknown key "mirors", did you mean "mirrors"?`,
		`r: {mirrors: m}`:                                              `w.yaml:2:16: want a list, write [...]`,
		`r: {mirrors: [a, "ftp://x"]}`:                                 `w.yaml:2:20: "ftp://x" is not a mirror`,
		`r: {mirrors: ["https://me:pw@x"]}`:                            `is not a mirror`,
		`r: {ca: DIR/gone.pem}`:                                        `w.yaml:2:11: DIR/gone.pem: no such file or directory`,
		`r: {ca: DIR/key.pem}`:                                         `DIR/key.pem: no PEM certificate in it`,
		`r: {ca: ca.pem}`:                                              `"ca.pem" is not an absolute path`,
		`r: {key: DIR/key.pem}`:                                        `w.yaml:2:3: key has no cert that it belongs to`,
		`r: {cert: DIR/cert.pem}`:                                      `w.yaml:2:3: cert and key: tls: found a certificate rather than a key`,
		`r: {cert: DIR/cert.pem, key: DIR/other.pem}`:                  `private key does not match public key`,
		`r: {insecure: true, ca: DIR/cert.pem}`:                        `insecure is plain HTTP`,
		`r: {insecure: yes}`:                                           `want true or false, not "yes", write true`,
		`r: {proxy: "proxy:3128"}`:                                     `"proxy:3128" is not a proxy, write http://host:3128 or none`,
		`r: {credentials: {}}`:                                         `names no credentials`,
		`r: {credentials: {password: hunter2}}`:                        `w.yaml:2:21: unknown key "password", secrets stand in files: write password_file`,
		`r: {credentials: {username: a}}`:                              `password_file is missing`,
		`r: {credentials: {helper: a, token_file: /t}}`:                `token_file and helper exclude each other`,
		`r: {credentials: {helper: ../sh}}`:                            `"../sh" is not the name of a credential helper`,
		`"*": {credentials: {token_file: DIR/password}}`:               `credentials for all registries would be sent to any`,
		`r: {policy: digests}`:                                         `w.yaml:2:15: "digests" is unknown, did you mean "digest"?`,
		`r: {policy: signed}`:                                          `no signers`,
		`r: {policy: [{repository: a}]}`:                               `require is missing`,
		`r: {policy: [{repository: "[", require: accept}]}`:            `repository pattern "["`,
		`r: {policy: [{require: signed, signers: [{key: DIR/gone}]}]}`: `DIR/gone`,
		`r: {policy: [{require: signed, signers: [{key: DIR/cert.pem, keyy: 1}]}]}`:      `unknown key "keyy", did you mean "key"?`,
		`r: {policy: [{require: signed, signers: [{identity_regexp: "(", issuer: x}]}]}`: `w.yaml:2:`,
	} {
		_, err := parse("registries:\n  "+text+"\n", dir)
		var all unit.Errors
		want = strings.ReplaceAll(want, "DIR", dir)
		if !errors.As(err, &all) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"gc: {high: 120%}":           `want a share from 1% to 100%, not "120%"`,
		"gc: {high: 50, low: 60}":    "w.yaml:1:21: 60% is not below the high mark of 50%",
		"gc: {min_age: 24}":          `"24" has no unit, write 24s`,
		"gc: {keep_revisions: 0}":    "want a number from 1",
		"gc: {hihg: 1}":              `did you mean "high"?`,
		"layers: squash":             `"squash" is unknown, it is auto, folder or erofs`,
		"gc: {reserve: [1]}":         "want a size",
		"registries: {r: {ca: [1]}}": "want text",
	} {
		if _, err := parse(text, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}

// A secret that is not there yet keeps no daemon from starting, but a reload
// from succeeding.
func TestMissingSecretsAreWarnings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wherry.yaml")
	text := "registries:\n  r: {credentials: {username: me, password_file: /nonexistent/p}}\ndocker_config: /nonexistent/c\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, warnings, err := load(flags{config: file}, "v")
	if err != nil || o.Registries["r"].Credentials == nil {
		t.Fatal(o.Registries, err)
	}
	if len(warnings) != 2 || !strings.HasSuffix(warnings[0].Error(), "wherry.yaml:2:50: /nonexistent/p: no such file or directory") {
		t.Errorf("warnings %v", warnings)
	}
	if _, err := reload(flags{config: file}, "v"); err == nil || !strings.Contains(err.Error(), "/nonexistent/p") {
		t.Errorf("reload: %v", err)
	}
}
