package ecr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/wherry-run/wherry/image/auth"
)

const private1 = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

func repository(t *testing.T, host string) authn.Resource {
	t.Helper()
	r, err := name.NewRepository(host + "/app")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// passwordOf resolves a host; "" is anonymous.
func passwordOf(t *testing.T, k *Keychain, host string) string {
	t.Helper()
	a, err := k.ResolveContext(t.Context(), repository(t, host))
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Authorization()
	if err != nil {
		t.Fatal(err)
	}
	if c.Password != "" && c.Username != "AWS" {
		t.Errorf("user %q", c.Username)
	}
	return c.Password
}

// counted gives tokens t1, t2 and so on.
type counted struct {
	calls atomic.Int64
	life  time.Duration
	err   error
	delay time.Duration
}

func (s *counted) token(ctx context.Context, _ string) (Token, error) {
	n := s.calls.Add(1)
	select {
	case <-time.After(s.delay):
	case <-ctx.Done():
		return Token{}, context.Cause(ctx)
	}
	return Token{fmt.Sprintf("t%d", n), "a test", s.life}, s.err
}

func with(s *counted) (*Keychain, *bytes.Buffer) {
	var log bytes.Buffer
	return New(Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), Fetch: s.token}), &log
}

func TestTokenIsKeptUntilShortlyBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{life: 12 * time.Hour}
		k, _ := with(s)
		for _, step := range []struct {
			wait time.Duration
			want string
		}{
			{0, "t1"}, {11 * time.Hour, "t1"}, {29 * time.Minute, "t1"}, {time.Minute, "t2"}, {time.Hour, "t2"},
		} {
			time.Sleep(step.wait)
			if got := passwordOf(t, k, private1); got != step.want {
				t.Errorf("after %v: %s, want %s", step.wait, got, step.want)
			}
		}
		a, err := k.Resolve(repository(t, private1))
		if err != nil || auth.Origin(a) != "a test" || strings.Contains(fmt.Sprintf("%+v", a), "t2") {
			t.Error(a, err)
		}
	})
}

func TestShortToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{life: 10 * time.Minute}
		k, _ := with(s)
		passwordOf(t, k, private1)
		time.Sleep(4 * time.Minute)
		if got := passwordOf(t, k, private1); got != "t1" {
			t.Error(got)
		}
		time.Sleep(time.Minute)
		if got := passwordOf(t, k, private1); got != "t2" {
			t.Error(got)
		}
		s.life = -time.Hour // a wrong clock: the token is used, but not kept
		k.Invalidate(private1)
		passwordOf(t, k, private1)
		if got := passwordOf(t, k, private1); got != "t4" {
			t.Error(got)
		}
	})
}

func TestOneRequestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{life: time.Hour, delay: time.Second}
		k, _ := with(s)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if got := passwordOf(t, k, private1); got != "t1" {
					t.Error(got)
				}
			})
		}
		// One who goes away does not take the request with him.
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		all.Go(func() {
			if _, err := k.ResolveContext(ctx, repository(t, private1)); !errors.Is(err, gone) {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel(gone)
		all.Wait()
		if n := s.calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestInvalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{life: time.Hour}
		k, _ := with(s)
		other := strings.Replace(private1, "eu-west-1", "eu-west-2", 1)
		passwordOf(t, k, private1)
		passwordOf(t, k, other)
		k.Invalidate(private1)
		k.Invalidate("not.known.example")
		if got := passwordOf(t, k, private1); got != "t3" {
			t.Error(got)
		}
		if got := passwordOf(t, k, other); got != "t2" {
			t.Error(got)
		}
		// A refused token does not come back when AWS does not answer.
		k.Invalidate(private1)
		s.err = errors.New("no answer")
		if _, err := k.Resolve(repository(t, private1)); !errors.Is(err, s.err) {
			t.Error(err)
		}
	})
}

func TestOldTokenServesWhileAWSDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{life: 12 * time.Hour}
		k, log := with(s)
		passwordOf(t, k, private1)
		s.err = errors.New("no answer")
		time.Sleep(11*time.Hour + 45*time.Minute)
		for range 2 {
			if got := passwordOf(t, k, private1); got != "t1" {
				t.Error(got)
			}
		}
		if n := s.calls.Load(); n != 2 || !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("%d calls\n%s", n, log)
		}
		time.Sleep(15 * time.Minute)
		_, err := k.Resolve(repository(t, private1))
		var known *auth.Error
		if !errors.As(err, &known) || known.Registry != private1 || !errors.Is(err, s.err) {
			t.Error(err)
		}
		s.err = nil
		if got := passwordOf(t, k, private1); got != "t4" {
			t.Error(got)
		}
	})
}

func TestPublicGalleryIsAnonymousWithoutAWS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{life: 12 * time.Hour, err: errors.New("no credentials")}
		k, log := with(s)
		for range 3 {
			if got := passwordOf(t, k, "public.ecr.aws"); got != "" {
				t.Error(got)
			}
		}
		if n := s.calls.Load(); n != 1 || strings.Contains(log.String(), "WARN") {
			t.Errorf("%d calls\n%s", n, log)
		}
		s.err = nil
		time.Sleep(anonymousFor)
		if got := passwordOf(t, k, "public.ecr.aws"); got != "t2" {
			t.Error(got)
		}
	})
}

func TestTimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{life: time.Hour, delay: time.Hour}
		k, _ := with(s)
		begin := time.Now()
		_, err := k.Resolve(repository(t, private1))
		if err == nil || !strings.Contains(err.Error(), "no answer within 30s") || time.Since(begin) != defaultTimeout {
			t.Error(err, time.Since(begin))
		}
	})
}

func TestOtherHostsAreAnonymousWithoutACall(t *testing.T) {
	s := &counted{}
	k, _ := with(s)
	for _, host := range []string{
		"docker.io", "ghcr.io", "ecr.example", "127.0.0.1:5000",
		"123456789012.dkr.example.net", "123456789012.dkr.ecr", "12345678901x.dkr.ecr.eu-west-1.amazonaws.com",
		"x123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		"12345.dkr.ecr.eu-west-1.amazonaws.com",
		"public.ecr.aws.example.net", "my-public.ecr.aws",
	} {
		if got := passwordOf(t, k, host); got != "" {
			t.Errorf("%s: %q", host, got)
		}
	}
	if s.calls.Load() != 0 || len(k.entries) != 0 {
		t.Errorf("%d calls, %d entries", s.calls.Load(), len(k.entries))
	}
}
