package api

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
)

// TestLostQuestion: a daemon that ends between a call and its answer leaves the question to the next one; what changes something is not
// asked twice.
func TestLostQuestion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	asked := make(chan string, 10)
	go func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if n == 1 {
				c.Close() // before it has read anything
				continue
			}
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				asked <- r.Method
				if n > 1 && r.Method == http.MethodGet {
					fmt.Fprint(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
				}
			}
			c.Close()
		}
	}()
	c := Dial(path)
	defer c.Close()
	if _, err := c.Info(t.Context()); err != nil {
		t.Errorf("the third daemon has answered: %v", err)
	}
	if err := c.call(t.Context(), http.MethodPost, "/reload", nil, nil, new(any)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a change: %v", err)
	}
	var got []string
	for len(asked) > 0 { // each call was noted before it was answered or cut off
		got = append(got, <-asked)
	}
	if want := []string{"GET", "GET", "POST"}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}
