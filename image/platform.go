package image

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// HostPlatform is what this program was built for.
func HostPlatform() Platform {
	return Platform{OS: "linux", Architecture: runtime.GOARCH}.normal()
}

// String is "linux/arm/v7".
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// ParsePlatform reads "linux/arm64" or "linux/arm/v7".
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return Platform{}, fmt.Errorf("platform %q: want OS/ARCHITECTURE[/VARIANT]", s)
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p.normal(), nil
}

// normal writes one platform in one way: names that uname uses become Go's,
// and the variant that every such processor has is left out.
func (p Platform) normal() Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386", "i686":
		p.Architecture = "386"
	}
	switch p.Architecture + p.Variant {
	case "arm64v8", "arm648", "amd64v1":
		p.Variant = ""
	case "arm":
		p.Variant = "v7"
	case "arm5", "arm6", "arm7":
		p.Variant = "v" + p.Variant
	}
	return p
}

// or fills in the fields that are empty from d, as far as they belong together.
func (p Platform) or(d Platform) Platform {
	if p == (Platform{}) {
		return d
	}
	p.OS = cmp.Or(p.OS, d.OS)
	if p.Architecture == "" {
		p.Architecture, p.Variant = d.Architecture, cmp.Or(p.Variant, d.Variant)
	}
	return p.normal()
}

// rank says how well an image for q runs on p: 0 is best, less than 0 not at all.
func (p Platform) rank(q Platform) int {
	q = q.normal()
	switch {
	case p.OS != q.OS || p.Architecture != q.Architecture:
		return -1
	case p.Variant == q.Variant:
		return 0
	case q.Variant == "":
		return 50
	}
	// A processor of version n runs what was made for the versions before.
	var have, want int
	if n, _ := fmt.Sscanf(p.Variant+" "+q.Variant, "v%d v%d", &have, &want); n != 2 || want > have {
		return -1
	}
	return have - want
}

// choose picks from an index the manifest that fits p best.
func (p Platform) choose(manifests []v1.Descriptor) (v1.Descriptor, error) {
	best, bestRank := -1, 0
	var all []string
	for i, m := range manifests {
		if m.Platform == nil {
			continue
		}
		q := Platform{m.Platform.OS, m.Platform.Architecture, m.Platform.Variant}
		if q.OS == "unknown" {
			continue // attestations
		}
		all = append(all, q.String())
		if r := p.rank(q); r >= 0 && (best < 0 || r < bestRank) {
			best, bestRank = i, r
		}
	}
	if best >= 0 {
		return manifests[best], nil
	}
	if len(all) == 0 && len(manifests) == 1 {
		return manifests[0], nil // an index that does not say
	}
	slices.Sort(all)
	return v1.Descriptor{}, fmt.Errorf("%w %s; it is for: %s", ErrPlatform, p, strings.Join(slices.Compact(all), ", "))
}
