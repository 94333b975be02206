package image

import (
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func descOf(c string, size int64) v1.Descriptor {
	h := v1.Hash{Algorithm: "sha256"}
	for range 64 {
		h.Hex += c
	}
	return v1.Descriptor{Digest: h, Size: size}
}

// The rate is that of the network: what was there before makes no bytes per
// second, and the time left is what is missing at that rate.
func TestMeter(t *testing.T) {
	a, b := descOf("a", 100_000), descOf("b", 100_000)
	now := time.Unix(1000, 0)
	m := newMeter(&resolved{size: 205_000, layers: []layerJob{{desc: a}, {desc: b}}}, now)
	m.set(a.Digest.String(), news{StepFetch, 50_000, 0}, now) // resumed
	if p := m.progress(); p.Done != 55_000 || p.Total != 205_000 || p.Rate != 0 || p.Left != 0 {
		t.Errorf("at the start: %+v", p)
	}
	for i := range int64(10) {
		now = now.Add(500 * time.Millisecond)
		m.set(a.Digest.String(), news{StepFetch, 50_000 + 5_000*(i+1), 5_000 * (i + 1)}, now)
	}
	if p := m.progress(); p.Done != 105_000 || p.Rate < 9_990 || p.Rate > 10_000 || p.Left.Round(time.Second) != 10*time.Second {
		t.Errorf("after five seconds: %+v", p)
	}
	m.set(a.Digest.String(), news{StepUnpack, 10, 0}, now) // a second try starts from zero
	if p := m.progress(); p.Done != 105_000 {
		t.Errorf("it went back: %+v", p)
	}
	for range 40 { // nothing comes any more
		now = now.Add(time.Second)
		m.sample(now)
	}
	if p := m.progress(); p.Rate != 0 || p.Left != 0 {
		t.Errorf("after silence: %+v", p)
	}
	m.set(a.Digest.String(), news{ProgressDone, 100_000, 50_000}, now)
	m.set(b.Digest.String(), news{ProgressExists, 100_000, 0}, now)
	if p := m.progress(); p.Done != p.Total || p.Left != 0 {
		t.Errorf("at the end: %+v", p)
	}
	if !m.due(now) || m.due(now.Add(reportEvery-1)) || !m.due(now.Add(reportEvery)) {
		t.Error("reports at the wrong time")
	}
}
