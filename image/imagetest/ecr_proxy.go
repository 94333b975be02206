package imagetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Proxy is an HTTP proxy on loopback that leads every host to one handler, with
// TLS by an authority of its own. With it a real name, which resolves to nothing
// here, is pulled from as it would be: a daemon takes
//
//	registries:
//	  123456789012.dkr.ecr.eu-west-1.amazonaws.com: {proxy: URL, ca: file with CA}
//
// or HTTPS_PROXY, and a Store Options.Proxy.
type Proxy struct {
	URL string
	CA  []byte // PEM

	front   *httptest.Server
	inner   *http.Server
	tunnels *tunnels
	ca      *x509.Certificate
	key     *ecdsa.PrivateKey

	mu    sync.Mutex
	hosts []string
	certs map[string]*tls.Certificate
}

// StartProxy starts a proxy. Close it.
func StartProxy(h http.Handler) (*Proxy, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p := &Proxy{key: key, certs: map[string]*tls.Certificate{}, tunnels: &tunnels{conns: make(chan net.Conn), closed: make(chan struct{})}}
	der, err := p.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "imagetest"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	if err != nil {
		return nil, err
	}
	if p.ca, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	p.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	p.inner = &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, TLSConfig: &tls.Config{GetCertificate: p.certificate}}
	go func() { _ = p.inner.ServeTLS(p.tunnels, "", "") }()
	p.front = httptest.NewServer(http.HandlerFunc(p.connect))
	p.URL = p.front.URL
	return p, nil
}

// Close stops the proxy at once.
func (p *Proxy) Close() {
	_ = p.inner.Close()
	p.tunnels.Close()
	p.front.Close()
}

// Hosts returns the "host:port" of all connections so far.
func (p *Proxy) Hosts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.hosts...)
}

// connect answers CONNECT and takes the connection over.
func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	p.mu.Lock()
	p.hosts = append(p.hosts, r.Host)
	p.mu.Unlock()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if _, err := conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil || !p.tunnels.add(conn) {
		conn.Close()
	}
}

// certificate makes the certificate of a host, once.
func (p *Proxy) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.certs[hello.ServerName]; c != nil {
		return c, nil
	}
	der, err := p.issue(&x509.Certificate{
		DNSNames: []string{hello.ServerName}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, p.ca)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: p.key}
	p.certs[hello.ServerName] = c
	return c, nil
}

// issue signs a certificate; without a parent by itself.
func (p *Proxy) issue(c, parent *x509.Certificate) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if parent == nil {
		parent = c
	}
	return x509.CreateCertificate(rand.Reader, c, parent, &p.key.PublicKey, p.key)
}

// tunnels is a listener whose connections come from the proxy.
type tunnels struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (t *tunnels) add(c net.Conn) bool {
	select {
	case t.conns <- c:
		return true
	case <-t.closed:
		return false
	}
}

// Accept implements net.Listener.
func (t *tunnels) Accept() (net.Conn, error) {
	select {
	case c := <-t.conns:
		return c, nil
	case <-t.closed:
		return nil, errors.New("closed")
	}
}

// Close implements net.Listener.
func (t *tunnels) Close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}

// Addr implements net.Listener.
func (t *tunnels) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
