package keyless

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

const (
	commandTimeout = 30 * time.Second
	maxAnswer      = 1 << 20
	maxQuestion    = 64 << 20
)

// answer is what the program writes after it has read a Request, each as one JSON
// document. Without a bundle only the trusted root is checked.
type answer struct {
	Result *Result `json:"result,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// Command is a Verifier that asks a program, one process a signature, which gets
// no environment and ends with its answer. Serve is the program's side.
func Command(path string) Verifier { return command(path) }

type command string

// CheckRoot implements Verifier.
func (c command) CheckRoot(ctx context.Context, trustedRoot []byte) error {
	_, err := c.Verify(ctx, Request{TrustedRoot: trustedRoot})
	return err
}

// Verify implements Verifier.
func (c command) Verify(ctx context.Context, r Request) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	in, err := json.Marshal(r)
	if err != nil {
		return Result{}, err
	}
	var out, complaint limited
	out.left, complaint.left = maxAnswer, 4<<10
	cmd := exec.CommandContext(ctx, string(c))
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &complaint
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) { // with which it has answered
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		text, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		if text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return Result{}, &BrokenError{fmt.Errorf("%s: %w", string(c), err)}
	}
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return Result{}, &BrokenError{fmt.Errorf("%s: its answer: %w", string(c), err)}
	}
	switch {
	case a.Error != "":
		return Result{}, errors.New(a.Error)
	case a.Result == nil || r.Bundle != nil && (a.Result.Identity < 0 || a.Result.Identity >= len(r.Identities)):
		return Result{}, &BrokenError{fmt.Errorf("%s: an answer without a result", string(c))}
	}
	return *a.Result, nil
}

// limited keeps the beginning of what is written to it.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.Buffer.Write(p[:n])
	return len(p), nil
}

// Serve answers one request of Command. Its error means that there is no answer.
func Serve(ctx context.Context, v Verifier, in io.Reader, out io.Writer) error {
	b, err := io.ReadAll(io.LimitReader(in, maxQuestion+1))
	if err != nil {
		return err
	}
	if len(b) > maxQuestion {
		return errors.New("the request is too large")
	}
	var r Request
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	var a answer
	var res Result
	if r.Bundle == nil {
		err = v.CheckRoot(ctx, r.TrustedRoot)
	} else {
		res, err = v.Verify(ctx, r)
	}
	var broken *BrokenError
	switch {
	case errors.As(err, &broken):
		return err
	case err != nil:
		a.Error = err.Error()
	default:
		a.Result = &res
	}
	return json.NewEncoder(out).Encode(a)
}
