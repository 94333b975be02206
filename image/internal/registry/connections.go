package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// connections are those to one host. Certificates are read when the first one is
// made, and again when their files have changed.
type connections struct {
	client *Client
	set    Host
	proxy  func(*http.Request) (*url.URL, error)

	wanted atomic.Bool // the host asked for a client certificate that we do not have

	mu        sync.Mutex
	transport *http.Transport
	stamps    [3]stamp
}

// stamp tells whether a file has changed: a new one under the name, or written to.
type stamp struct {
	ctime unix.Timespec
	ino   uint64
}

func stampOf(path string) stamp {
	if path == "" {
		return stamp{}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}
	}
	return stamp{st.Ctim, st.Ino}
}

func (c *connections) roundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !isLoopback(r.URL.Host) && !c.set.Insecure {
		return nil, &plainHTTPError{r.URL.Host}
	}
	t, err := c.get()
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(r)
	if err == nil {
		return resp, nil
	}
	failed := &networkError{error: err}
	if c.wanted.Load() {
		// With TLS 1.3 the refusal comes so late that HTTP/2 hides it.
		failed.hint = "; it asks for a client certificate, and none is configured"
	}
	return nil, failed
}

func (c *connections) get() (*http.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := [3]stamp{stampOf(c.set.CA), stampOf(c.set.Cert), stampOf(c.set.Key)}
	if c.transport != nil && c.stamps == now {
		return c.transport, nil
	}
	t, err := newTransport(c.set, c.proxy, &c.wanted)
	if err != nil {
		return nil, &setupError{err}
	}
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
	c.transport, c.stamps = t, now
	return t, nil
}

func (c *connections) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
}

// setupError is a mistake on our side: nothing was asked.
type setupError struct{ error }

func newTransport(set Host, proxy func(*http.Request) (*url.URL, error), wanted *atomic.Bool) (*http.Transport, error) {
	conf, err := tlsConfig(set)
	if err != nil {
		return nil, err
	}
	if set.Cert == "" {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			wanted.Store(true)
			return &tls.Certificate{}, nil
		}
	}
	if proxy, err = proxyOf(set.Proxy, proxy); err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                 proxy,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       conf,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          32,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		DisableCompression:    true, // a layer is what its digest covers
		ReadBufferSize:        64 << 10,

		MaxResponseHeaderBytes: 1 << 20,
	}, nil
}

func tlsConfig(set Host) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if set.CA != "" {
		pem, err := os.ReadFile(set.CA)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
			conf.RootCAs = x509.NewCertPool() // a host without any
		}
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authority: no certificate in %s", set.CA)
		}
	}
	if set.Cert != "" {
		key := set.Key
		if key == "" {
			key = set.Cert
		}
		pair, err := tls.LoadX509KeyPair(set.Cert, key)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// proxyOf reads Host.Proxy.
func proxyOf(s string, otherwise func(*http.Request) (*url.URL, error)) (func(*http.Request) (*url.URL, error), error) {
	switch s {
	case "":
		return otherwise, nil
	case "none":
		return nil, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h" {
		return nil, errors.New(`proxy: want "none" or a URL that begins with http://, https:// or socks5://`) // it may contain a password
	}
	return http.ProxyURL(u), nil
}

type plainHTTPError struct{ host string }

func (e *plainHTTPError) Error() string {
	return fmt.Sprintf("%s is not trusted with plain HTTP; list it as insecure if it is", e.host)
}

// isLoopback takes a host with or without a port.
func isLoopback(host string) bool {
	host = hostname(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func hostname(host string) string { return (&url.URL{Host: host}).Hostname() }

// private tells whether a host is an address inside our network.
func private(host string) bool {
	if isLoopback(host) {
		return true
	}
	ip, err := netip.ParseAddr(hostname(host))
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	return ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()
}

// instanceService is the IPv6 address of EC2's metadata service. All others are link-local.
var instanceService = netip.MustParseAddr("fd00:ec2::254")

// metadata tells whether a host is an address at which clouds hand out an
// instance's credentials.
func metadata(host string) bool {
	ip, err := netip.ParseAddr(hostname(host))
	return err == nil && (ip.Unmap().IsLinkLocalUnicast() || ip == instanceService)
}

// checkRedirect keeps a registry from sending us to services inside our
// network: from a public host no redirect and no token service leads to a private
// address, and from nowhere to the instance's metadata.
func checkRedirect(from, to *url.URL) error {
	if metadata(to.Host) && hostname(to.Host) != hostname(from.Host) {
		return fmt.Errorf("redirect from %s to the instance's metadata at %s refused", from.Host, to.Host)
	}
	if private(to.Host) && !private(from.Host) && to.Host != from.Host {
		return fmt.Errorf("redirect from %s to the private address %s refused", from.Host, to.Host)
	}
	return nil
}
