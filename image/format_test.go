package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-run/wherry/image/internal/blob"
	"github.com/wherry-run/wherry/image/internal/registry"
)

const (
	aDigest  = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	ociImage = "application/vnd.oci.image.manifest.v1+json"
	ociIndex = "application/vnd.oci.image.index.v1+json"
	ociLayer = "application/vnd.oci.image.layer.v1.tar"
)

func manifestOf(body string) *registry.Manifest {
	return &registry.Manifest{Digest: blob.Digest([]byte(body)), Body: []byte(body)}
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		body, header string
		want         kind
		err          string
	}{
		{`{"schemaVersion":2,"mediaType":"` + ociImage + `","config":{},"layers":[]}`, "text/plain", kindImage, ""},
		{`{"schemaVersion":2,"config":{},"layers":[]}`, ociImage, kindImage, ""},
		{`{"schemaVersion":2,"config":{},"layers":[]}`, "application/octet-stream", kindImage, ""},
		{`{"schemaVersion":2,"manifests":[]}`, "", kindIndex, ""},
		{`{"schemaVersion":2}`, ociIndex, kindIndex, ""},
		{`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[]}`, "", kindIndex, ""},
		{`{"schemaVersion":1,"fsLayers":[]}`, "application/vnd.docker.distribution.manifest.v1+prettyjws", 0, "schema 1 are not supported"},
		{`{"fsLayers":[]}`, "application/vnd.docker.distribution.manifest.v1+json", 0, "schema 1 are not supported"},
		{`{"schemaVersion":2,"manifests":[],"layers":[]}`, ociIndex, 0, "index and a manifest at once"},
		{`{"schemaVersion":2,"mediaType":"` + ociIndex + `","config":{}}`, "", 0, "has not the content"},
		{`{"schemaVersion":2,"mediaType":"` + ociImage + `","manifests":[]}`, "", 0, "has not the content"},
		{`{"schemaVersion":3,"config":{}}`, ociImage, 0, "schema version 3"},
		{`{"schemaVersion":2}`, "application/x", 0, `"application/x" are not supported`},
		{`<html>`, "text/html", 0, "invalid character"},
		{``, "", 0, "unexpected end"},
	} {
		m := manifestOf(c.body)
		m.MediaType = types.MediaType(c.header)
		got, err := kindOf(m)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s (%s): %v %v", c.body, c.header, got, err)
		}
	}
}

func TestLayerFormats(t *testing.T) {
	for mt, want := range map[string]string{
		"": "", "application/octet-stream": "", ociLayer: "", ociLayer + "+gzip": "", ociLayer + "+zstd": "",
		"application/vnd.docker.image.rootfs.diff.tar.gzip": "", "application/vnd.docker.image.rootfs.diff.tar": "", "application/vnd.docker.image.rootfs.diff.tar.zstd": "",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":    "layer " + aDigest + " is foreign, registries do not have its content (application/vnd.docker.image.rootfs.foreign.diff.tar.gzip): its manifest says to get it from https://x/layer",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "is foreign",
		ociLayer + "+gzip+encrypted":                                   "layer " + aDigest + " is encrypted",
		"application/vnd.cncf.helm.chart.content.v1.tar+gzip":          "no layer of files",
		"application/wasm":                                                 "no layer of files",
		"application/vnd.oci.image.layer.v1.tar+lz4":                       "no layer of files",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+whatever": "is foreign",
	} {
		d := v1.Descriptor{MediaType: types.MediaType(mt), Digest: hashOf(aDigest), URLs: []string{"https://x/layer"}}
		if err := checkLayer(d); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mt, err)
		}
	}
}

func hashOf(s string) v1.Hash {
	h, err := v1.NewHash(s)
	if err != nil {
		panic(err)
	}
	return h
}

func TestParseManifestRefuses(t *testing.T) {
	layer := func(size string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%s}`, ociLayer, aDigest, size)
	}
	man := func(config, layers string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[%s]}`, config, aDigest, layers)
	}
	const image = "application/vnd.oci.image.config.v1+json"
	for body, want := range map[string]string{
		man(image, layer("5")):                               "",
		man("", layer("5")):                                  "",
		man(image, ""):                                       "",
		man(image, layer("-1")):                              "with -1 bytes",
		man(image, layer("1125899906842625")):                "bytes",
		man(image, layer("1125899906842624")+","+layer("1")): "claim to have more",
		man(image, layer("9223372036854775807")+","+layer("9223372036854775807")): "bytes",
		man(image, strings.TrimSuffix(strings.Repeat(layer("1")+",", 501), ",")):  "501 layers, more than the 500",
		man("application/vnd.cncf.helm.config.v1+json", ""):                       "not a container image, but a Helm chart",
		man("application/vnd.wasm.config.v0+json", ""):                            "but a WebAssembly module",
		man("application/vnd.oci.empty.v1+json", ""):                              "but an artifact",
		`{"schemaVersion":2,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + aDigest + `"}}`: "but a signature",
		`{"schemaVersion":2,"config":{"digest":"sha256:short"}}`: "manifest sha256:",
		`{"schemaVersion":2,"config":{"size":2}}`:                "blob",
		`[]`: "manifest sha256:",
	} {
		_, err := parseManifest(manifestOf(body))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.300s: %v", body, err)
		}
	}
}

// shelf is where indexes lie, by digest.
type shelf map[string]string

func (s shelf) put(body string) string {
	d := blob.Digest([]byte(body))
	s[d] = body
	return d
}

func (s shelf) Manifest(_ context.Context, id string) (*registry.Manifest, error) {
	if body, ok := s[id]; ok {
		return manifestOf(body), nil
	}
	return nil, ErrNotFound
}

func (s shelf) Small(context.Context, v1.Descriptor, int64) ([]byte, error) { return nil, ErrNotFound }

func (s shelf) image(name string) string {
	return s.put(fmt.Sprintf(`{"schemaVersion":2,"config":{},"layers":[],"annotations":{"name":%q}}`, name))
}

func (s shelf) index(entries ...string) string {
	return s.put(fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, strings.Join(entries, ",")))
}

func entryOf(digest, platform, more string) string {
	mt := ociImage
	if strings.HasPrefix(platform, "index") {
		mt, platform = ociIndex, strings.TrimPrefix(platform, "index")
	}
	p := ""
	if platform != "" {
		parts := append(strings.Split(platform, "/"), "")
		b, _ := json.Marshal(v1.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]})
		p = `,"platform":` + string(b)
	}
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1%s%s}`, mt, digest, p, more)
}

func TestChoosingFromIndexes(t *testing.T) {
	s := shelf{}
	v5, v7, v8, base, v2, v3 := s.image("v5"), s.image("v7"), s.image("v8"), s.image("base"), s.image("v2"), s.image("v3")
	other := s.image("other")
	arms := s.index(entryOf(v5, "linux/arm/v5", ""), entryOf(v7, "linux/arm/v7", ""), entryOf(v8, "linux/arm64/v8", ""))
	levels := s.index(entryOf(base, "linux/amd64", ""), entryOf(v2, "linux/amd64/v2", ""), entryOf(v3, "linux/amd64/v3", ""))
	extras := s.index(
		entryOf(other, "unknown/unknown", ""), entryOf(other, "linux/amd64", `,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}`),
		entryOf(other, "linux/amd64", `,"artifactType":"application/spdx+json"`),
		strings.Replace(entryOf(other, "linux/amd64", ""), ociImage, "application/vnd.oci.artifact.manifest.v1+json", 1),
		strings.Replace(entryOf(other, "linux/amd64", ""), `"os":"linux"`, `"os":"linux","os.features":["erofs"]`, 1),
		entryOf(base, "linux/amd64", ""))
	nested := s.index(entryOf(arms, "index", ""), entryOf(levels, "index", ""))
	named := s.index(entryOf(arms, "indexlinux/arm", ""), entryOf(levels, "indexlinux/amd64", ""))
	deep := base
	for range 6 {
		deep = s.index(entryOf(deep, "index", ""))
	}
	wide := make([]string, 40)
	for i := range wide {
		wide[i] = entryOf(s.index(entryOf(other, fmt.Sprintf("linux/x%d", i), "")), "index", "")
	}
	for _, c := range []struct {
		from, platform, want, err string
	}{
		{arms, "linux/arm/v7", v7, ""}, {arms, "linux/arm/v6", v5, ""}, {arms, "linux/arm/v8", v7, ""}, {arms, "linux/arm64", v8, ""},
		{arms, "linux/arm64/v9", v8, ""}, {arms, "linux/amd64", "", "linux/amd64; it is for: linux/arm/v5, linux/arm/v7, linux/arm64/v8"},
		{levels, "linux/amd64", base, ""}, {levels, "linux/amd64/v2", v2, ""}, {levels, "linux/amd64/v4", v3, ""},
		{extras, "linux/amd64", base, ""}, {extras, "linux/arm", "", "linux/arm/v7; it is for: linux/amd64, linux/amd64 with erofs"},
		{nested, "linux/arm/v7", v7, ""}, {nested, "linux/amd64", base, ""}, {named, "linux/amd64/v3", v3, ""},
		{nested, "linux/s390x", "", "it is for: linux/amd64, linux/amd64/v2"},
		{s.index(entryOf(base, "", "")), "linux/amd64", base, ""},
		{s.index(entryOf(base, "", ""), entryOf(other, "", "")), "linux/amd64", "", "no image at all"},
		{s.index(), "linux/amd64", "", "no image at all"},
		{deep, "linux/amd64", "", "too deeply"},
		{s.index(wide...), "linux/amd64", "", "too deeply"},
		{s.index(entryOf(aDigest, "linux/amd64", "")), "linux/amd64", "", "no such image"},
		{s.put(`{"schemaVersion":2,"manifests":[{"digest":"sha256:x"}]}`), "linux/amd64", "", "index sha256:"},
		{s.put(`{"schemaVersion":2,"manifests":[{"size":3}]}`), "linux/amd64", "", "index sha256:"},
		{base, "linux/s390x", base, ""}, // its config will tell
	} {
		p, err := ParsePlatform(c.platform)
		if err != nil {
			t.Fatal(err)
		}
		f := &finder{from: s, platform: p}
		m, path, err := f.find(ctx, c.from, nil)
		if err == nil && m == nil {
			err = p.none(f.all)
			if !errors.Is(err, ErrPlatform) {
				t.Error(err)
			}
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || err == nil && m.Digest != c.want {
			t.Errorf("%s for %s: %+v %v", s[c.from], c.platform, m, err)
		}
		if c.from == nested && c.want == v7 && !reflect.DeepEqual(path, []string{nested, arms}) {
			t.Error(path)
		}
	}
}

func TestVariantOf(t *testing.T) {
	v2 := "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
	v3 := v2 + " abm avx avx2 bmi1 bmi2 f16c fma movbe"
	for _, c := range []struct{ arch, info, want string }{
		{"amd64", "flags\t\t: fpu sse2", "v1"}, {"amd64", "model name : x\nflags : " + v2, "v2"}, {"amd64", "flags : " + v3, "v3"},
		{"amd64", "flags : " + v3 + " avx512f", "v3"}, {"amd64", "flags : " + v3 + " avx512bw avx512cd avx512dq avx512f avx512vl", "v4"},
		{"amd64", "flags : avx2", "v1"}, {"amd64", "", "v1"},
		{"arm", "CPU architecture: 7", "v7"}, {"arm", "model name : ARMv6-compatible processor rev 7 (v6l)\nCPU architecture: 7", "v6"},
		{"arm", "CPU architecture: AArch64", "v8"}, {"arm", "CPU architecture: 5TEJ", "v5"}, {"arm", "", ""}, {"arm64", "CPU architecture: 8", ""},
	} {
		if got := variantOf(c.arch, c.info); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.arch, c.info, got, c.want)
		}
	}
	if p := HostPlatform(); p.OS != "linux" || p.Architecture == "" || p != p.normal() {
		t.Error(p)
	}
}
