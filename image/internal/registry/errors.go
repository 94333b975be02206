package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/wherry-run/wherry/image/internal/blob"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound    = errors.New("no such image")
	ErrDenied      = errors.New("access denied")
	ErrUnavailable = errors.New("registry unavailable") // may pass by itself
)

// failure is one request that did not give what was asked for.
type failure struct {
	host      string // as people call it
	kind      error  // ErrNotFound, ErrDenied, ErrUnavailable or nil
	text      string
	cause     error     // nil, or what callers look for with errors.As
	temporary bool      // the same request may succeed a little later
	until     time.Time // not before
}

func (f *failure) Error() string { return f.text }

// Unwrap returns the kind and the cause.
func (f *failure) Unwrap() []error {
	var all []error
	for _, err := range []error{f.kind, f.cause} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// tried is a failure at every place that was asked.
type tried struct {
	main *failure   // of the registry itself: what the caller is told it is
	all  []*failure // in the order that the places were asked in
}

func (e *tried) Error() string {
	if len(e.all) == 1 {
		return e.main.Error()
	}
	var parts []string
	for _, f := range e.all {
		text := f.text
		if !strings.Contains(text, f.host) {
			text = f.host + ": " + text
		}
		parts = append(parts, text)
	}
	return fmt.Sprintf("%d places tried: %s", len(e.all), strings.Join(parts, "; "))
}

// Unwrap returns the registry's own failure.
func (e *tried) Unwrap() error { return e.main }

// closedError is a gate that is closed. Nothing was asked.
type closedError struct {
	host  string
	until time.Time
}

func (e *closedError) Error() string {
	return fmt.Sprintf("registry %s: too many requests; it wants none until %s (in %s)", e.host, e.until.Format(time.RFC3339), time.Until(e.until).Round(time.Second))
}

// answer is an answer that says no.
type answer struct {
	host    string // that gave it
	status  int
	message string // the registry's own words, if it has any
	target  string // a redirect's, if that said it
}

const maxErrorBody = 64 << 10

// answerOf reads what the registry says about its refusal.
func answerOf(host string, resp *http.Response) *answer {
	defer resp.Body.Close()
	a := &answer{host: host, status: resp.StatusCode}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var said struct {
		Errors  []struct{ Code, Message string }
		Details string
		Message string
	}
	if json.Unmarshal(body, &said) != nil {
		return a
	}
	a.message = said.Message
	if a.message == "" {
		a.message = said.Details // Docker Hub's token service
	}
	for _, e := range said.Errors {
		if e.Message != "" {
			a.message = e.Message
			break
		}
	}
	a.message = printable(a.message)
	return a
}

// printable keeps a registry's words from being more than words.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "..."
	}
	return s
}

func (a *answer) Error() string {
	s := fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))
	if a.message != "" {
		s += ": " + a.message
	}
	return s
}

func (a *answer) failure(origin string) *failure {
	f := &failure{host: a.host}
	switch {
	case a.target != "" && a.status != http.StatusTooManyRequests && a.status < 500:
		// The address that the registry sent us to has expired, or is not ours to read.
		f.kind, f.temporary = ErrUnavailable, true
		f.text = fmt.Sprintf("registry %s: %s, where it redirects to, answers %s", a.host, a.target, a)
	case a.status == http.StatusNotFound:
		f.kind, f.text = ErrNotFound, ErrNotFound.Error()
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden:
		f.kind = ErrDenied
		f.text = fmt.Sprintf("access denied by registry %s: no such repository, or credentials are needed (%s)", a.host, a)
		if origin != "" {
			f.text = fmt.Sprintf("access denied by registry %s: no such repository, or credentials from %s are not good for it (%s)", a.host, origin, a)
		}
	case a.status == http.StatusTooManyRequests:
		f.kind, f.temporary = ErrUnavailable, true
		f.text = fmt.Sprintf("registry %s: too many requests (%s)", a.host, a)
	case a.status == http.StatusRequestTimeout, a.status >= 500:
		f.kind, f.temporary = ErrUnavailable, true
		f.text = fmt.Sprintf("registry %s answers %s", a.host, a)
	default:
		f.text = fmt.Sprintf("registry %s answers %s", a.host, a)
	}
	return f
}

// failureOf puts what went wrong while host was asked into our words.
func failureOf(host string, err error) *failure {
	f := &failure{host: host, cause: err}
	var known *failure
	var closed *closedError
	var said *answer
	var mismatch *blob.MismatchError
	var plain *plainHTTPError
	var setup *setupError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &closed):
		f.kind, f.text, f.temporary, f.until = ErrUnavailable, closed.Error(), true, closed.until
	case errors.As(err, &said):
		return said.failure("")
	case errors.As(err, &mismatch):
		f.text = err.Error()
	case errors.As(err, &plain), isPlainAnswer(err):
		f.cause = &plainHTTPError{host}
		f.text = fmt.Sprintf("registry %s: no TLS there, and %v", host, f.cause)
	case errors.As(err, &setup):
		f.text = fmt.Sprintf("registry %s: %v", host, err)
	case isCertificate(err):
		return certificateFailure(host, err)
	case isNetwork(err):
		f.kind, f.text = ErrUnavailable, fmt.Sprintf("registry %s: %v", host, plainly(err))
		var dns *net.DNSError
		var n *networkError
		if errors.As(err, &n) {
			f.text += n.hint
		}
		f.temporary = !errors.As(err, &dns) || !dns.IsNotFound
	default:
		f.text = fmt.Sprintf("registry %s: %v", host, err)
	}
	return f
}

// isPlainAnswer knows the error of net/http for a server without TLS.
func isPlainAnswer(err error) bool {
	var header tls.RecordHeaderError
	return errors.As(err, &header) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

type networkError struct {
	error
	hint string // what may be the reason, if the error does not say it
}

func (e *networkError) Unwrap() error { return e.error }

// isNetwork tells what came out of a connection from what we decided ourselves.
func isNetwork(err error) bool {
	var n *networkError
	return errors.As(err, &n)
}

// plainly leaves away what is not for people: "dial tcp 1.2.3.4:5:", "connect:".
func plainly(err error) error {
	var n *networkError
	if errors.As(err, &n) {
		err = n.error
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("connection closed")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		var sys syscall.Errno
		if errors.As(op.Err, &sys) {
			return sys
		}
		return op.Err
	}
	return err
}

// isCertificate tells whether a server could not prove who it is.
func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}

// certificateFailure is final, except where our clock may be to blame: machines
// without a battery boot in the past, and know the time a little later.
func certificateFailure(host string, err error) *failure {
	f := &failure{host: host, text: fmt.Sprintf("registry %s: %v", host, plainly(err)), cause: err}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		f.kind, f.temporary = ErrUnavailable, true
		f.text += fmt.Sprintf("; the clock of this machine says %s, is it right?", time.Now().UTC().Format(time.RFC3339))
	}
	return f
}

// isDial tells whether there was no connection at all.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
