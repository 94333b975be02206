package imagetest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBusybox(t *testing.T) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox here")
	}
	img, err := Busybox(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	tr := tar.NewReader(bytes.NewReader(img.Layers[0].Tar))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	for _, want := range []string{"bin/busybox", "bin/sh", "etc/passwd", "tmp/"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s", want)
		}
	}
	if _, err := Busybox("/nowhere"); err == nil {
		t.Error("no error")
	}
}

func TestRegistryFaultsCount(t *testing.T) {
	r := Start()
	defer r.Close()
	r.Break(Fault{Path: "/v2/", Status: http.StatusTeapot, Times: 2})
	var got []int
	for range 3 {
		resp, err := http.Get("http://" + r.Host + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		got = append(got, resp.StatusCode)
	}
	if !slices.Equal(got, []int{418, 418, 200}) || len(r.Requests("GET /v2/")) != 3 {
		t.Error(got, r.Requests(""))
	}
}

// TestFaultProxy: what each rule does to an answer, as a client sees it.
func TestFaultProxy(t *testing.T) {
	body := "0123456789abcdef"
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		http.ServeContent(w, q, "", time.Time{}, strings.NewReader(body))
	}))
	defer origin.Close()
	for name, c := range map[string]struct {
		rule   Rule
		want   string
		status int
		broken bool
	}{
		"nothing":      {Rule{}, body[2:], 206, false},
		"other path":   {Rule{Path: "/other", Status: 500}, body[2:], 206, false},
		"skipped":      {Rule{Skip: 1, Status: 500}, body[2:], 206, false},
		"status":       {Rule{Status: 429, RetryAfter: "7"}, "", 429, false},
		"no range":     {Rule{IgnoreRange: true}, body, 200, false},
		"reset":        {Rule{Reset: true, After: 5}, body[2:7], 206, true},
		"reset first":  {Rule{Reset: true}, "", 206, true},
		"wrong":        {Rule{Wrong: []int64{0}}, "3" + body[3:], 206, false},
		"cut":          {Rule{Cut: 4}, body[2:12], 206, false},
		"short":        {Rule{Short: 4}, body[2:12], 206, true},
		"added":        {Rule{Add: "!"}, body[2:] + "!", 206, false},
		"trickle":      {Rule{Every: time.Nanosecond, Piece: 3}, body[2:], 206, false},
		"extra header": {Rule{Header: http.Header{"X": {"y"}}}, body[2:], 206, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := StartFaultProxy(origin.URL, FaultProxyOptions{})
			defer p.Close()
			p.Do(c.rule)
			req, _ := http.NewRequest("GET", "http://"+p.Host+"/v2/x/blobs/y", nil)
			req.Header.Set("Range", "bytes=2-")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || (err != nil) != c.broken || c.status != 429 && string(got) != c.want {
				t.Errorf("%d %q %v", resp.StatusCode, got, err)
			}
			if c.rule.RetryAfter != resp.Header.Get("Retry-After") || c.rule.Header.Get("X") != resp.Header.Get("X") {
				t.Error(resp.Header)
			}
			for len(p.Log("/blobs/y")) == 0 { // or the end of the proxy would be the end of a request that is as good as done
				time.Sleep(time.Millisecond)
			}
			p.Close()
			if log := p.Log("/blobs/y"); len(log) != 1 || log[0].Range != "bytes=2-" || log[0].Whole == c.broken || c.status != 429 && p.Bytes("") != int64(len(c.want)) {
				t.Error(log)
			}
		})
	}
}

func TestLoginTokens(t *testing.T) {
	l := &Login{User: "me", Password: "secret", Uses: 2}
	r := Start()
	defer r.Close()
	r.Require(l)
	ask := func(path, auth string) (int, string) {
		req, _ := http.NewRequest("GET", "http://"+r.Host+path, nil)
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, _ := ask("/v2/a/manifests/1", ""); code != 401 {
		t.Error(code)
	}
	if code, _ := ask("/token?service=imagetest&scope=repository:a:pull", "Basic bWU6d3Jvbmc="); code != 401 {
		t.Error(code)
	}
	if code, body := ask("/token?service=imagetest&scope=repository:a:pull", "Basic bWU6c2VjcmV0"); code != 200 || !strings.Contains(body, "token-1") {
		t.Error(code, body)
	}
	for i, want := range []int{404, 404, 401} { // good for two requests
		if code, _ := ask("/v2/a/manifests/1", "Bearer token-1"); code != want {
			t.Error(i, code)
		}
	}
	if code, _ := ask("/token?service=imagetest&scope=repository:a:pull", "Basic bWU6c2VjcmV0"); code != 200 {
		t.Error(code)
	}
	if code, _ := ask("/v2/b/manifests/1", "Bearer token-2"); code != 401 {
		t.Errorf("a token for another repository: %d", code)
	}
	l.Expire()
	if code, _ := ask("/v2/a/manifests/1", "Bearer token-2"); code != 401 {
		t.Errorf("an expired token: %d", code)
	}
}
