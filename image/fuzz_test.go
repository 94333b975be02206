package image

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/overlay"
	"github.com/wherry-run/wherry/image/internal/registry"
)

// FuzzReference: a name that is taken is taken for the same image when it is read
// again in its full form, and is safe to put into a URL and into a message.
func FuzzReference(f *testing.F) {
	for _, s := range []string{
		"nginx", "nginx:1.27", "docker.io/library/nginx@" + aDigest, "host:5000/a/b:tag", "localhost/x", "[::1]:5000/x", "a/b:t@" + aDigest,
		"index.docker.io/x", "ghcr.io/A/b", "a//b", "../x", "x:y:z", "xn--nxasmq6b/x", "-/x", "a.b:/x", "a@sha256:", "HOST/x", " x", "x\n",
	} {
		f.Add(s)
	}
	s := &Store{}
	s.registries.Store(&registries{insecure: []string{"host:5000"}})
	f.Fuzz(func(t *testing.T, in string) {
		r, err := s.parseRef(in)
		if err != nil {
			return
		}
		full := r.String()
		again, err := s.parseRef(full)
		if err != nil || again.String() != full || again.digest() != r.digest() || again.Identifier() != r.Identifier() {
			t.Errorf("%q is %q, which is %v, %v", in, full, again, err)
		}
		host, path, ok := strings.Cut(r.repository(), "/")
		if !ok || host == "" || path == "" || strings.Contains(path, "..") && strings.Contains("/"+path+"/", "/../") || strings.ContainsAny(full, " \t\r\n\x00?#%\\\"<>") {
			t.Errorf("%q is %q", in, full)
		}
		if d := r.digest(); d != "" {
			if _, err := blob.CheckDigest(d); err != nil {
				t.Errorf("%q has digest %q: %v", in, d, err)
			}
		}
	})
}

// FuzzManifest: whatever a registry sends, it is refused, or it is an image whose
// numbers are sound.
func FuzzManifest(f *testing.F) {
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + aDigest + `"]},"config":{"Env":["A=b"],"Volumes":{"/x":{}}},"created":"2026-01-02T03:04:05Z"}`
	layer := `{"mediaType":"` + ociLayer + `+gzip","digest":"` + aDigest + `","size":7}`
	man := `{"schemaVersion":2,"mediaType":"` + ociImage + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + aDigest + `","size":2},"layers":[` + layer + `]}`
	s := shelf{}
	index := s[s.index(entryOf(aDigest, "linux/amd64/v2", ""), entryOf(aDigest, "linux/arm/v6", ""), entryOf(aDigest, "index", ""), entryOf(aDigest, "unknown/unknown", ""))]
	f.Add(man, ociImage, config)
	f.Add(index, ociIndex, "")
	f.Add(`{"schemaVersion":1,"fsLayers":[]}`, "", "{}")
	f.Add(strings.Replace(man, "+gzip", "+encrypted", 1), "", config)
	f.Add(strings.Replace(man, "oci.image.config", "cncf.helm.config", 1), "", config)
	f.Fuzz(func(t *testing.T, body, mediaType, config string) {
		m := &registry.Manifest{Digest: blob.Digest([]byte(body)), MediaType: types.MediaType(mediaType), Body: []byte(body)}
		k, err := kindOf(m)
		if err != nil {
			return
		}
		if k == kindIndex {
			fuzzIndex(t, m)
			return
		}
		man, err := parseManifest(m)
		if err != nil {
			return
		}
		res := &resolved{digest: m.Digest, manifest: m.Body, configID: man.Config.Digest.String(), config: []byte(config)}
		if err := res.readConfig(man, Platform{OS: "linux", Architecture: "amd64"}); err != nil {
			return
		}
		size := man.Config.Size + int64(len(body))
		if len(res.layers) != len(man.Layers) || len(res.layers) > overlay.MaxLower {
			t.Fatalf("%d layers of %d", len(res.layers), len(man.Layers))
		}
		for _, l := range res.layers {
			size += l.desc.Size
			for _, d := range []string{l.desc.Digest.String(), l.diffID, l.chain} {
				if _, err := blob.CheckDigest(d); err != nil {
					t.Errorf("%q: %v", d, err)
				}
			}
		}
		if res.size != size || size < 0 || size > 2*maxImageSize {
			t.Errorf("size %d, want %d", res.size, size)
		}
		if _, _, err := configOf(res.config); err != nil {
			t.Errorf("read once, but not twice: %v", err)
		}
		if _, err := ParsePlatform(res.platform.String()); err != nil && res.platform.OS != "" && res.platform.Architecture != "" {
			t.Logf("platform %q", res.platform)
		}
	})
}

func fuzzIndex(t *testing.T, m *registry.Manifest) {
	list, err := parseIndex(m)
	if err != nil {
		return
	}
	for _, p := range []Platform{{"linux", "amd64", "v3"}, {"linux", "arm", "v7"}, {"windows", "arm64", ""}} {
		c := p.choose(list)
		picks := append(append([]v1.Descriptor{}, c.nested...), c.unnamed...)
		if c.best != nil {
			picks = append(picks, *c.best)
			q := Platform{c.best.Platform.OS, c.best.Platform.Architecture, c.best.Platform.Variant}
			if p.rank(q) < 0 {
				t.Errorf("%s for %s", q, p)
			}
		}
		for _, d := range picks {
			if _, err := blob.CheckDigest(d.Digest.String()); err != nil || d.Size < 0 {
				t.Errorf("%s with %d bytes", d.Digest, d.Size)
			}
		}
	}
}
