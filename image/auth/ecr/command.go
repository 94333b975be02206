package ecr

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"time"
)

const (
	maxQuestion = 4 << 10
)

// question and answer are what goes to the program and comes back, each as one
// JSON document. An answer has a token, or says that the host is not ECR's, or what
// went wrong.
type question struct {
	Host string `json:"host"`
}

type answer struct {
	Password string        `json:"password,omitempty"`
	From     string        `json:"from,omitempty"`
	Life     time.Duration `json:"life,omitempty"`
	NotECR   bool          `json:"not_ecr,omitempty"`
	Error    string        `json:"error,omitempty"`
}

// Command is a Fetch that asks a program, one process a token, in the environment
// of ours. What the program writes to stderr is logged as debug. Serve is the
// program's side.
func Command(path string, log *slog.Logger) Fetch {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return func(ctx context.Context, host string) (Token, error) {
		in, err := json.Marshal(question{host})
		if err != nil {
			return Token{}, err
		}
		var out, complaint bytes.Buffer
		cmd := exec.CommandContext(ctx, path)
		cmd.Dir = "/"
		cmd.WaitDelay = time.Second
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &complaint
		err = cmd.Run()
		for s := bufio.NewScanner(&complaint); s.Scan(); {
			log.Debug("wherry-ecr: " + s.Text())
		}
		// With ErrWaitDelay it has answered, and a child of its (a credential_process of the AWS configuration) holds on to the pipe.
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return Token{}, fmt.Errorf("%s: %w", path, err)
		}
		var a answer
		if err := json.Unmarshal(out.Bytes(), &a); err != nil {
			// Not the error itself: it may quote the answer.
			return Token{}, fmt.Errorf("%s: its answer is not one", path)
		}
		switch {
		case a.NotECR:
			return Token{}, ErrNotECR
		case a.Error != "":
			return Token{}, errors.New(a.Error)
		case a.Password == "":
			return Token{}, fmt.Errorf("%s: an answer without a token", path)
		}
		return Token{Password: a.Password, From: a.From, Life: a.Life}, nil
	}
}

// Serve answers one question of Command. Its error means that there is no answer.
func Serve(ctx context.Context, fetch Fetch, in io.Reader, out io.Writer) error {
	b, err := io.ReadAll(io.LimitReader(in, maxQuestion))
	if err != nil {
		return err
	}
	var q question
	if err := json.Unmarshal(b, &q); err != nil {
		return fmt.Errorf("question: %w", err)
	}
	if strings.TrimSpace(q.Host) == "" {
		return errors.New("question: no host")
	}
	var a answer
	t, err := fetch(ctx, q.Host)
	switch {
	case errors.Is(err, ErrNotECR):
		a.NotECR = true
	case err != nil:
		a.Error = err.Error()
	default:
		a = answer{Password: t.Password, From: t.From, Life: t.Life}
	}
	return json.NewEncoder(out).Encode(a)
}
