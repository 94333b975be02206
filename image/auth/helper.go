package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
	"unicode"

	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	helperPrefix  = "docker-credential-"
	helperTimeout = 30 * time.Second

	// What a helper says if it has nothing, and as the name of its user if the
	// secret is an identity token: github.com/docker/docker-credential-helpers.
	helperNotFound  = "credentials not found in native keychain"
	helperTokenUser = "<token>"
)

// askHelper asks docker-credential-X for a server. Nothing is no error.
func askHelper(ctx context.Context, helper, server string) (authn.AuthConfig, error) {
	c, err := runHelper(ctx, helper, server, helperTimeout)
	if err != nil {
		return c, fmt.Errorf("credential helper %s%s: %w", helperPrefix, helper, err)
	}
	return c, nil
}

func runHelper(ctx context.Context, helper, server string, limit time.Duration) (none authn.AuthConfig, err error) {
	if err := helperName(helper); err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	var out, stderr limited
	cmd := exec.CommandContext(ctx, helperPrefix+helper, "get")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(server), &out, &stderr
	cmd.WaitDelay = time.Second // a child of the helper may hold on to the pipe
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return none, context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return none, errors.New("no such program in PATH")
	case errors.Is(err, exec.ErrWaitDelay): // it has answered
	case err != nil && strings.TrimSpace(out.String()) == helperNotFound:
		return none, nil
	case err != nil:
		return none, fmt.Errorf("%w%s", err, complaint(out.String(), stderr.String()))
	}
	return helperAnswer(out.Bytes())
}

func helperName(helper string) error {
	if helper == "" || strings.ContainsAny(helper, "/\\ \x00") {
		return fmt.Errorf("%q is not the name of a helper: it is X of docker-credential-X", helper)
	}
	return nil
}

// helperAnswer reads what a helper printed. It is not quoted in errors.
func helperAnswer(out []byte) (none authn.AuthConfig, err error) {
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return none, fmt.Errorf("its answer of %d bytes is not the JSON of a credential helper", len(out))
	}
	switch {
	case answer.Username == "" && answer.Secret == "":
		return none, nil
	case answer.Username == "" || answer.Secret == "":
		return none, errors.New("its answer has no user name or no secret")
	case answer.Username == helperTokenUser:
		return authn.AuthConfig{IdentityToken: answer.Secret}, nil
	}
	return authn.AuthConfig{Username: answer.Username, Password: answer.Secret}, nil
}

// complaint is the first line that a failed helper printed. The protocol has the
// reason on stdout; what looks like an answer is not shown.
func complaint(outputs ...string) string {
	for _, s := range outputs {
		line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
		if line == "" || strings.ContainsAny(s, "{}") {
			continue
		}
		line = strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return -1
		}, line)
		if len(line) > 200 {
			line = line[:200] + "..."
		}
		return ": " + line
	}
	return ""
}

// limited keeps the first bytes of an output.
type limited struct{ bytes.Buffer }

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	const most = 64 << 10
	l.Buffer.Write(p[:min(len(p), most-l.Len())])
	return len(p), nil
}
