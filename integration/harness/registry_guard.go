package harness

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/wherry-run/wherry/image/imagetest"
)

// Guard is what a registry asks of its clients.
type Guard struct {
	User, Password string        // as htpasswd has it; empty: nothing
	CA             *imagetest.CA // TLS with a certificate of this authority; nil: plain HTTP
	Clients        bool          // and only for clients that have one of it too
}

func (g Guard) scheme() string {
	if g.CA != nil {
		return "https"
	}
	return "http"
}

// StartGuardedRegistry is StartRegistry for one that does not let everybody in.
func StartGuardedRegistry(t testing.TB, g Guard, images ...string) *Registry {
	t.Helper()
	r := startRegistry(t, g, images...)
	t.Cleanup(r.Close)
	return r
}

// config is the registry's configuration, after its last key of http. It sets up
// our own client as well.
func (g Guard) config(t testing.TB, r *Registry) (text string) {
	t.Helper()
	if g.CA != nil {
		text += g.tls(t, r)
	}
	if g.User == "" {
		return text
	}
	bin, err := exec.LookPath("htpasswd")
	if err != nil {
		t.Skip("htpasswd is not installed: scripts/setup test")
	}
	file := filepath.Join(r.dir, "htpasswd")
	if out, err := exec.Command(bin, "-cbB", "-C", "4", file, g.User, g.Password).CombinedOutput(); err != nil {
		t.Fatalf("htpasswd: %v\n%s", err, out)
	}
	r.push = append(r.push, remote.WithAuth(&authn.Basic{Username: g.User, Password: g.Password}))
	return text + fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", file)
}

func (g Guard) tls(t testing.TB, r *Registry) (text string) {
	t.Helper()
	if err := errors.Join(g.CA.Write(r.dir, "server"), g.CA.Write(r.dir, "client")); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(r.File("client.pem"), r.File("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(g.CA.PEM)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	t.Cleanup(tr.CloseIdleConnections)
	r.client = &http.Client{Transport: tr}
	r.push = append(r.push, remote.WithTransport(tr))
	clients := ""
	if g.Clients {
		clients = fmt.Sprintf(", clientcas: [%s]", r.File("ca.pem"))
	}
	return fmt.Sprintf("  tls: {certificate: %s, key: %s%s}\n", r.File("server.pem"), r.File("server.key"), clients)
}

// File is the path of a file that the registry's guard made: ca.pem, client.pem,
// client.key.
func (r *Registry) File(name string) string { return filepath.Join(r.dir, name) }

// Make uploads an image that a test has made itself as "NAME:TAG", and returns the
// digest of its manifest.
func (r *Registry) Make(t testing.TB, ref string, i imagetest.Image) (digest string) {
	t.Helper()
	memory := imagetest.Start()
	defer memory.Close()
	digest, err := memory.Push(ref, i)
	if err != nil {
		t.Fatal(err)
	}
	from, err := name.ParseReference(memory.Host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	to, err := name.ParseReference(r.Addr+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, img, r.push...); err != nil {
		t.Fatal(err)
	}
	return digest
}

// Password writes a password into a file of its own and returns the path.
func (h *Host) Password(name, password string) string {
	h.t.Helper()
	file := filepath.Join(h.Dir, name)
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// Reconfigure writes another wherry.yaml and has the daemon read it.
func (h *Host) Reconfigure(config string) {
	h.t.Helper()
	h.Config = config
	if err := os.WriteFile(h.Dir+"/wherry.yaml", []byte(config), 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.OK("reload")
}
