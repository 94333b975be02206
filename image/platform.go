package image

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// HostPlatform is what this program was built for and, where an architecture has
// levels, the highest one that the processor has.
func HostPlatform() Platform {
	p := Platform{OS: "linux", Architecture: runtime.GOARCH}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		p.Variant = variantOf(runtime.GOARCH, string(b))
	}
	return p.normal()
}

// amd64Levels are the flags that each level adds to the one before (x86-64 psABI,
// 3.1.1), as the kernel writes them.
var amd64Levels = [][]string{
	{"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"},
	{"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"},
	{"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
}

// variantOf reads the variant from /proc/cpuinfo; "" if it does not say.
func variantOf(arch, cpuinfo string) string {
	field := func(name string) string {
		for line := range strings.Lines(cpuinfo) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
				return strings.TrimSpace(v)
			}
		}
		return ""
	}
	switch arch {
	case "amd64":
		flags, level := strings.Fields(field("flags")), 1
		for _, more := range amd64Levels {
			if slices.ContainsFunc(more, func(f string) bool { return !slices.Contains(flags, f) }) {
				break
			}
			level++
		}
		return fmt.Sprintf("v%d", level)
	case "arm":
		// A processor of version 8 says 8, or AArch64 on kernels before 3.17.
		switch v := field("CPU architecture"); v {
		case "5TE", "5TEJ", "5T":
			return "v5"
		case "6TEJ":
			return "v6"
		case "AArch64":
			return "v8"
		case "5", "6", "7", "8":
			// An ARM11 with a kernel for version 6 claims 7 (Raspberry Pi 1 and Zero).
			if v == "7" && strings.Contains(field("model name"), "ARMv6") {
				v = "6"
			}
			return "v" + v
		}
	}
	return ""
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
		return 500
	}
	// A processor of version n runs what was made for the versions before.
	have, want := version(p.Variant), version(q.Variant)
	if have == 0 || want == 0 || want > have {
		return -1
	}
	return have - want
}

// version makes "v8" 80 and "v8.2" 82, and 0 of what is no version.
func version(variant string) int {
	major, minor, _ := strings.Cut(strings.TrimPrefix(variant, "v"), ".")
	a, err := strconv.ParseUint(major, 10, 8)
	b, err2 := strconv.ParseUint(cmp.Or(minor, "0"), 10, 8)
	if err != nil || err2 != nil || b > 9 || !strings.HasPrefix(variant, "v") {
		return 0
	}
	return int(a*10 + b)
}

// choice is what an index offers a platform.
type choice struct {
	best    *v1.Descriptor  // nil: none fits
	nested  []v1.Descriptor // indexes that do not say what they are for
	unnamed []v1.Descriptor // manifests that do not say it either
	all     []string        // platforms that it names
}

// choose looks through an index.
func (p Platform) choose(manifests []v1.Descriptor) choice {
	var c choice
	bestRank := -1
	for _, m := range manifests {
		if !isImage(m) {
			continue
		}
		if m.Platform == nil || m.Platform.OS == "" && m.Platform.Architecture == "" {
			if m.MediaType.IsIndex() {
				c.nested = append(c.nested, m)
			} else {
				c.unnamed = append(c.unnamed, m)
			}
			continue
		}
		q := Platform{m.Platform.OS, m.Platform.Architecture, m.Platform.Variant}
		name := q.String()
		if len(m.Platform.OSFeatures) > 0 { // none is a matter of course on Linux
			c.all = append(c.all, name+" with "+strings.Join(m.Platform.OSFeatures, ", "))
			continue
		}
		c.all = append(c.all, name)
		if r := p.rank(q); r >= 0 && (c.best == nil || r < bestRank) {
			c.best, bestRank = &m, r
		}
	}
	return c
}

// isImage leaves out what an index holds besides images: attestations of
// BuildKit, artifacts such as signatures.
func isImage(m v1.Descriptor) bool {
	if m.Platform != nil && m.Platform.OS == "unknown" {
		return false
	}
	if m.Annotations["vnd.docker.reference.type"] != "" {
		return false
	}
	if m.ArtifactType != "" && !types.MediaType(m.ArtifactType).IsConfig() {
		return false
	}
	return m.MediaType == "" || m.MediaType.IsImage() || m.MediaType.IsIndex()
}

// none is the error for an index without anything for p.
func (p Platform) none(all []string) error {
	if len(all) == 0 {
		return fmt.Errorf("%w %s: the index names no image at all", ErrPlatform, p)
	}
	slices.Sort(all)
	return fmt.Errorf("%w %s; it is for: %s", ErrPlatform, p, strings.Join(slices.Compact(all), ", "))
}
