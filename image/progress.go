package image

import (
	"math"
	"time"
)

const (
	// reportEvery bounds how often the progress of a download is told.
	reportEvery = 100 * time.Millisecond

	sampleEvery = 250 * time.Millisecond // between two looks at the rate
	rateMemory  = 3 * time.Second        // older samples count for little
)

// meter adds up the downloads of an image's layers. Bytes that were there
// before count as done, but not into the rate.
type meter struct {
	total  int64
	base   int64            // what is no layer
	counts map[string]int64 // how often a layer occurs
	layers map[string]news

	reported time.Time // last

	rate     float64 // bytes per second, smoothed
	measured bool    // rate has a value
	sampled  time.Time
	fetched  int64 // at sampled
}

func newMeter(res *resolved, now time.Time) *meter {
	m := &meter{total: res.size, base: res.size, counts: map[string]int64{}, layers: map[string]news{}, sampled: now}
	for _, j := range res.layers {
		m.counts[j.desc.Digest.String()]++
		m.base -= j.desc.Size
	}
	return m
}

// set takes over how far a layer is.
func (m *meter) set(layer string, n news, now time.Time) {
	old := m.layers[layer]
	n.done, n.fetched = max(n.done, old.done), max(n.fetched, old.fetched)
	m.layers[layer] = n
	m.sample(now)
}

func (m *meter) sample(now time.Time) {
	passed := now.Sub(m.sampled)
	if passed < sampleEvery {
		return
	}
	var fetched int64
	for _, n := range m.layers {
		fetched += n.fetched
	}
	current := float64(fetched-m.fetched) / passed.Seconds()
	if m.measured {
		weight := 1 - math.Exp(-passed.Seconds()/rateMemory.Seconds())
		current = m.rate + weight*(current-m.rate)
	}
	m.rate, m.measured = current, m.measured || current > 0
	m.sampled, m.fetched = now, fetched
}

// due tells whether it is time for another report.
func (m *meter) due(now time.Time) bool {
	if now.Sub(m.reported) < reportEvery {
		return false
	}
	m.reported = now
	return true
}

// progress is the image's.
func (m *meter) progress() Progress {
	p := Progress{Step: string(StepFetch), Done: m.base, Total: m.total}
	for layer, n := range m.layers {
		p.Done += m.counts[layer] * n.done
	}
	left := m.total - p.Done
	if left <= 0 || m.rate < 1 {
		return p
	}
	p.Rate = int64(m.rate)
	p.Left = time.Duration(float64(left) / m.rate * float64(time.Second)).Round(time.Second / 10)
	return p
}
