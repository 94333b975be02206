package ecr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain makes this binary the program that Command starts.
func TestMain(m *testing.M) {
	if what := os.Getenv("WHERRY_ECR_TEST"); what != "" {
		os.Exit(program(what))
	}
	os.Exit(m.Run())
}

func program(what string) int {
	fetch := func(_ context.Context, host string) (Token, error) {
		switch what {
		case "refuses":
			return Token{}, errors.New("AccessDenied: no")
		case "not ecr":
			return Token{}, ErrNotECR
		}
		return Token{"secret of " + host, "a test", time.Hour}, nil
	}
	switch what {
	case "hangs":
		time.Sleep(time.Hour)
	case "talks":
		fmt.Println("hello, secret")
		return 0
	case "empty":
		fmt.Println("{}")
		return 0
	case "breaks":
		return 3
	case "leaves a child":
		child := exec.Command("sleep", "5")
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			return 4
		}
	}
	fmt.Fprintln(os.Stderr, "a word of the SDK")
	if err := Serve(context.Background(), fetch, os.Stdin, os.Stdout); err != nil {
		return 1
	}
	return 0
}

func TestCommand(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ what, want string }{
		{"refuses", "AccessDenied: no"},
		{"not ecr", ErrNotECR.Error()},
		{"talks", "its answer is not one"},
		{"empty", "without a token"},
		{"breaks", "exit status 3"},
	} {
		t.Setenv("WHERRY_ECR_TEST", tc.what)
		_, err := Command(self, nil)(t.Context(), private1)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", tc.what, err)
		}
		if tc.what == "not ecr" && !errors.Is(err, ErrNotECR) {
			t.Errorf("%s: %v", tc.what, err)
		}
	}

	for _, what := range []string{"answers", "leaves a child"} {
		t.Setenv("WHERRY_ECR_TEST", what)
		var log bytes.Buffer
		got, err := Command(self, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))(t.Context(), private1)
		if want := (Token{"secret of " + private1, "a test", time.Hour}); err != nil || got != want {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
		if s := log.String(); !strings.Contains(s, "level=DEBUG") || !strings.Contains(s, "a word of the SDK") || strings.Contains(s, "secret") {
			t.Errorf("%s: log: %s", what, s)
		}
	}

	// Whoever waits no longer ends the program.
	t.Setenv("WHERRY_ECR_TEST", "hangs")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := Command(self, nil)(ctx, private1); !errors.Is(err, gone) {
		t.Error(err)
	}
	if _, err := Command(filepath.Join(t.TempDir(), "missing"), nil)(t.Context(), private1); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestServeRefuses(t *testing.T) {
	for _, in := range []string{"", "{", `{"host":" "}`, `[]`, strings.Repeat("x", 10<<10)} {
		var out bytes.Buffer
		if err := Serve(t.Context(), nil, strings.NewReader(in), &out); err == nil || out.Len() > 0 {
			t.Errorf("%.20q: %v, %s", in, err, &out)
		}
	}
}

// A name that only looks like one of ECR's is not asked for again and again.
func TestNotECR(t *testing.T) {
	calls := 0
	k := New(Options{Fetch: func(context.Context, string) (Token, error) { calls++; return Token{}, ErrNotECR }})
	for range 3 {
		if got := passwordOf(t, k, private1+".example.net"); got != "" {
			t.Error(got)
		}
	}
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}
