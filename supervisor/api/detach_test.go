package api

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// lastWords is a connection that the other side ends as soon as it hears that we leave.
type lastWords struct{ heard, over chan struct{} }

func (l *lastWords) Read([]byte) (int, error) {
	<-l.heard
	return 0, io.EOF
}

func (l *lastWords) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("detach")) {
		close(l.heard)
		<-l.over
	}
	return len(b), nil
}

func (l *lastWords) Close() error { return nil }

type leaving struct{}

func (leaving) Read([]byte) (int, error) { return 0, ErrDetached }

// TestDetach: the other side's answer to a farewell is its end, which is no loss.
func TestDetach(t *testing.T) {
	conn := &lastWords{make(chan struct{}), make(chan struct{})}
	s := &duplex{c: Dial("none"), ctx: t.Context(), conn: conn}
	err := s.run(Input{Stdin: leaving{}}, Output{}, started, func(Control) bool { return false })
	close(conn.over)
	if !errors.Is(err, ErrDetached) {
		t.Errorf("after we left: %v", err)
	}
}
