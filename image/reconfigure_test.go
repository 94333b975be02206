package image

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/wherry-run/wherry/image/imagetest"
)

// TestReconfigure: credentials and trust count from the next pull on, while
// others pull.
func TestReconfigure(t *testing.T) {
	r := imagetest.Start()
	defer r.Close()
	if _, err := r.Push("app:1", imagetest.Image{Layers: []imagetest.Layer{imagetest.NewLayer(imagetest.Entry{Name: "a", Body: "1"})}}); err != nil {
		t.Fatal(err)
	}
	r.RequireLogin("me", "secret", true)
	config := filepath.Join(t.TempDir(), "config.json")
	body := `{"auths":{"` + r.Host + `":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("me:secret")) + `"}}}`
	if err := os.WriteFile(config, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, Options{})
	if _, err := s.Pull(ctx, r.Host+"/app:1", PullOptions{}); err == nil {
		t.Fatal("no credentials are needed")
	}
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() { _, _ = s.Pull(ctx, r.Host+"/app:1", PullOptions{Policy: Always}) })
	}
	s.Reconfigure(Options{DockerConfig: config})
	others.Wait()
	pullOK(t, s, r.Host+"/app:1")

	const far = "far.example:5000/app:1"
	if got := mustRef(t, s, far).Context().Scheme(); got != "https" {
		t.Errorf("scheme before: %s", got)
	}
	s.Reconfigure(Options{DockerConfig: config, Insecure: []string{"far.example:5000"}})
	if got := mustRef(t, s, far).Context().Scheme(); got != "http" {
		t.Errorf("scheme after: %s", got)
	}
	if got := s.registries.Load().insecure; len(got) != 1 {
		t.Errorf("trusted: %q", got)
	}
}
