package image

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"

	"github.com/wherry-run/wherry/image/imagetest"
)

// startDistribution starts the registry that most others are built from, with
// further lines of its configuration.
func startDistribution(t *testing.T, more ...string) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	host, dir := lastingPort(t), t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp:\n  addr: %q\n%s\n", dir, host, strings.Join(more, "\n"))
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(2 * time.Minute); ; {
		conn, err := net.Dial("tcp", host)
		if err == nil {
			conn.Close()
			return host
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // another process: there is nothing to wait on
	}
}

// lastingPort is a free port below those that the kernel gives to whoever asks for any: of them
// another test's server or client could have it before the program that it is for.
func lastingPort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

func TestPullFromDistribution(t *testing.T) {
	host := startDistribution(t)
	ref, err := name.ParseReference(host + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(300000, 4)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, Options{Platform: Platform{OS: "linux", Architecture: "amd64"}})
	got := pullOK(t, s, host+"/team/app:1")
	if d, _ := img.Digest(); got.Digest != d.String() || len(got.Layers) != len(c.RootFS.DiffIDs) {
		t.Errorf("%+v", got)
	}
	// Its blobs can be read from the middle.
	repo := s.connect(mustRef(t, s, host+"/team/app:1"), nil)
	layers, _ := img.Layers()
	digest, _ := layers[0].Digest()
	size, _ := layers[0].Size()
	d := descriptor(digest, size)
	body, at, err := repo.Blob(ctx, d, size-10, -1)
	if err != nil || at != size-10 {
		t.Fatal(at, err)
	}
	body.Close()
	assertClean(t, s)
}

func mustRef(t *testing.T, s *Store, ref string) reference {
	t.Helper()
	r, err := s.parseRef(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func descriptor(digest v1.Hash, size int64) v1.Descriptor {
	return v1.Descriptor{Digest: digest, Size: size}
}

// TestDistributionWithLoginAndTLS: a private CA, a client's certificate and a
// password, as on a registry in a company's network.
func TestDistributionWithLoginAndTLS(t *testing.T) {
	ca, dir := imagetest.NewCA(), t.TempDir()
	if err := errors.Join(ca.Write(dir, "server"), ca.Write(dir, "client")); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(file("htpasswd"), []byte("me:"+string(hash)+"\n"), 0o600), os.WriteFile(file("password"), []byte("secret\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	host := startDistribution(t,
		fmt.Sprintf("  tls: {certificate: %s, key: %s, clientcas: [%s]}", file("server.pem"), file("server.key"), file("ca.pem")),
		fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}", file("htpasswd")))
	good := Registry{CA: file("ca.pem"), Cert: file("client.pem"), Key: file("client.key"), Credentials: &Credentials{Username: "me", PasswordFile: file("password")}}
	pushTLS(t, host, good)
	for name, c := range map[string]struct {
		change func(r *Registry)
		want   string
	}{
		"all":            {func(*Registry) {}, ""},
		"no CA":          {func(r *Registry) { r.CA = "" }, "unknown authority"},
		"no certificate": {func(r *Registry) { r.Cert, r.Key = "", "" }, "it asks for a client certificate"},
		"no password":    {func(r *Registry) { r.Credentials = nil }, "access denied by registry " + host},
	} {
		t.Run(name, func(t *testing.T) {
			how := good
			c.change(&how)
			s := newStore(t, Options{Registries: map[string]Registry{host: how}, Platform: Platform{OS: "linux", Architecture: "amd64"}})
			_, err := s.Pull(ctx, host+"/app:1", PullOptions{})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
		})
	}
}

// pushTLS pushes a random image as app:1.
func pushTLS(t *testing.T, host string, how Registry) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(how.Cert, how.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(how.CA)
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal(err)
	}
	img, err := random.Image(3000, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	defer tr.CloseIdleConnections()
	if err := remote.Write(ref, img, remote.WithTransport(tr), remote.WithAuth(&authn.Basic{Username: "me", Password: "secret"})); err != nil {
		t.Fatal(err)
	}
}

// TestPullThroughDistribution: a pull-through cache as mirror. Once it has the
// image, the registry itself is not needed; without the cache, it is.
func TestPullThroughDistribution(t *testing.T) {
	up := newRegistry(t)
	digest := push(t, up, "app:1", oneFile("f", "1"))
	cache := startDistribution(t, fmt.Sprintf("proxy: {remoteurl: \"http://%s\"}", up.Host))
	through := imagetest.StartFaultProxy(cache, imagetest.FaultProxyOptions{})
	defer through.Close()
	o := Options{Registries: map[string]Registry{up.Host: {Mirrors: []string{"127.0.0.1:1/nobody", through.Host}}}}
	for range 2 {
		if img := pullOK(t, newStore(t, o), up.Host+"/app:1"); img.Digest != digest || len(img.Names) != 1 || img.Names[0] != up.Host+"/app:1" {
			t.Errorf("%+v", img)
		}
	}
	if n := through.Count("GET", "/blobs/"); n != 4 { // config and layer, for each of the stores
		t.Error(through.Log("/blobs/"))
	}
	through.Do(imagetest.Rule{Status: 503})
	pullOK(t, newStore(t, o), up.Host+"/app:1")
	up.Close()
	s := newStore(t, o)
	_, err := s.Pull(ctx, up.Host+"/app:1", PullOptions{})
	if !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	for _, want := range []string{
		"3 places tried: ", "registry 127.0.0.1:1: connection refused",
		"registry " + through.Host + " answers 503 Service Unavailable", "registry " + up.Host + ": connection refused",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func TestRateLimits(t *testing.T) {
	r := newRegistry(t)
	push(t, r, "app:1", oneFile("f", "1"))
	p := imagetest.StartFaultProxy(r.Host, imagetest.FaultProxyOptions{})
	defer p.Close()
	p.Do(imagetest.Rule{Times: 1, Path: "/manifests/", Header: http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"99;w=21600"}}})
	s := newStore(t, Options{})
	if got := s.RateLimits(); len(got) != 0 {
		t.Error(got)
	}
	pullOK(t, s, p.Host+"/app:1")
	if got := s.RateLimits(); len(got) != 1 || got[0].Registry != p.Host || got[0].Limit != 100 || got[0].Remaining != 99 || got[0].Window != 6*time.Hour || !got[0].Until.IsZero() {
		t.Errorf("%+v", got)
	}
	p.Do(imagetest.Rule{Status: 429, RetryAfter: "3600"})
	if _, err := s.Pull(ctx, p.Host+"/app:1", PullOptions{Policy: Always}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "it wants none until") {
		t.Error(err)
	}
	s.Reconfigure(Options{})
	if got := s.RateLimits(); len(got) != 1 || got[0].Remaining != 99 || time.Until(got[0].Until) < 59*time.Minute {
		t.Errorf("%+v", got)
	}
}

func TestBrokenRegistrySettings(t *testing.T) {
	bad := Options{Root: t.TempDir(), Registries: map[string]Registry{"x": {Mirrors: []string{"ftp://m"}}}}
	if _, err := Open(bad); err == nil || !strings.Contains(err.Error(), `image store: registry x: mirror "ftp://m"`) || bad.Check() == nil {
		t.Error(err)
	}
	s := newStore(t, Options{Insecure: []string{"a.example"}})
	s.Reconfigure(bad)
	if got := s.registries.Load().insecure; len(got) != 1 {
		t.Errorf("%q", got)
	}
}
