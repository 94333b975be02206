package imagetest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"testing"
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
