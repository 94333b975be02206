package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// cargo is one unit of the soak.
type cargo struct {
	name string
	kind *kind

	// One who changes the unit at a time; who needs it to stay as it is reads.
	mu      sync.RWMutex
	there   bool
	stopped bool

	// When somebody was last allowed to end its processes from outside.
	quiet  sync.Mutex
	nudged time.Time
}

// nudge notes that a process may end without having said so.
func (c *cargo) nudge() {
	c.quiet.Lock()
	defer c.quiet.Unlock()
	c.nudged = time.Now()
}

func (c *cargo) nudgedSince(t time.Time) bool {
	c.quiet.Lock()
	defer c.quiet.Unlock()
	return c.nudged.After(t)
}

// kind is what a unit does.
type kind struct {
	name   string
	weight int
	steady bool // it runs until somebody stops it
	once   bool // it ends for good
	body   func(r *rand.Rand) string
	mixed  bool // its body says network, users and so on itself
}

// count is a program that counts, 20 lines at a time.
const count = `while :; do n=0; while [ $n -lt 20 ]; do i=$((i+1)); n=$((n+1)); echo "n $i"; done; sleep 0.5; done`

// ends is a program that counts a little, says how it is going to end, and does so.
func ends(after float64, word, how string) string {
	return fmt.Sprintf(`echo "n 1"; sleep %.1f; echo "n 2"; echo "bye %s"; %s`, after, word, how)
}

func exits(r *rand.Rand) string {
	code := []int{0, 1, 2, 7, 42, 78, 127, 137, 200, 255}[r.IntN(10)]
	return ends(life(r), fmt.Sprint(code), fmt.Sprintf("exit %d", code))
}

func life(r *rand.Rand) float64 { return 0.2 + 4*r.Float64() }

// patient is a back-off that lets two cores start all that crash, and do something else besides.
const patient = "restart_policy: {delay: 500ms, max_delay: 15s, reset_after: 30s}\n"

var kinds = []*kind{
	{name: "count", weight: 30, steady: true, body: func(*rand.Rand) string { return sh("i=0; " + count) }},
	{name: "exits", weight: 12, body: func(r *rand.Rand) string { return patient + sh(exits(r)) }},
	{name: "signal", weight: 6, body: func(r *rand.Rand) string {
		sig := []string{"SEGV", "ABRT", "KILL", "TERM", "BUS"}[r.IntN(5)]
		return patient + sh(ends(life(r), "SIG"+sig, "kill -"+sig+" $$; sleep 10"))
	}},
	{name: "oom", weight: 4, body: func(r *rand.Rand) string {
		return patient + "resources: {limits: {memory: 16MiB}}\n" + sh(ends(life(r), "OOM", "exec dd if=/dev/zero of=/dev/null bs=64M count=1"))
	}},
	{name: "flood", weight: 6, steady: true, body: func(r *rand.Rand) string {
		lines := 20000 + r.IntN(150000)
		return "logging: {max_size: 1MiB, max_file: 4}\nresources: {limits: {cpus: 0.5}}\n" +
			sh(fmt.Sprintf(`from=0; while :; do busybox awk -v f=$from 'BEGIN{p=sprintf("%%100s","x"); for(i=1;i<=%d;i++) printf "n %%d %%s\n", f+i, p}'; from=$((from+%d)); sleep %d; done`,
				lines, lines, 6+r.IntN(10)))
	}},
	{name: "web", weight: 10, steady: true, mixed: true, body: func(r *rand.Rand) string {
		return fmt.Sprintf("network: bridge\nports: [\"8000\"]\nreplicas: %d\n", 1+r.IntN(2)) +
			sh("mkdir -p /w; echo served >/w/index.html; httpd -f -p 8000 -h /w & i=0; "+count)
	}},
	{name: "volume", weight: 6, steady: true, body: func(*rand.Rand) string {
		return "volumes: [\"NAME-data:/data\", \"/anon\", {type: tmpfs, target: /scratch, size: 1MiB}]\n" +
			sh("k=$(cat /data/k 2>/dev/null || echo 0); echo $((k+1)) >/data/k; echo x >/anon/x; echo x >/scratch/x; i=0; "+count)
	}},
	{name: "tty", weight: 5, steady: true, body: func(*rand.Rand) string {
		return "tty: true\nstdin_open: true\n" + patient + sh(`while read l; do echo "got $l"; done; echo "bye 3"; exit 3`)
	}},
	{name: "multi", weight: 6, steady: true, mixed: true, body: func(r *rand.Rand) string {
		return patient + fmt.Sprintf("network: %s\ncontainers:\n", []string{"bridge", "none"}[r.IntN(2)]) +
			member("first", ends(0.2, "0", "exit 0"), "essential: false") +
			member("main", "i=0; "+count, "depends_on: {first: {condition: completed_successfully}}") +
			member("side", exits(r), "essential: false")
	}},
	{name: "stubborn", weight: 4, steady: true, body: func(*rand.Rand) string {
		return "stop_grace_period: 300ms\n" + sh("trap '' TERM; i=0; "+count)
	}},
	{name: "forks", weight: 4, steady: true, body: func(*rand.Rand) string {
		return sh(`i=0; while :; do i=$((i+1)); echo "n $i"; for j in 1 2 3 4 5; do (sleep 0.3 & sleep 0.2 & true); done; sleep 1; done`)
	}},
	{name: "once", weight: 4, once: true, body: func(r *rand.Rand) string { return "restart: \"no\"\n" + sh(exits(r)) }},
	{name: "bare", weight: 3, body: func(r *rand.Rand) string { return "init: false\n" + patient + sh(exits(r)) }},
}

func sh(script string) string { return "entrypoint: " + quoted("sh", "-c", script) + "\n" }

// quoted is a list of YAML; JSON is.
func quoted(words ...string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(words)
	return strings.TrimSpace(b.String())
}

func member(name, script, more string) string {
	return fmt.Sprintf("  %s: {image: IMAGE, stop_grace_period: 2s, entrypoint: %s, %s}\n", name, quoted("sh", "-c", script), more)
}

// deal makes n units, the kinds by their weights.
func deal(r *rand.Rand, n int) []*cargo {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	var all []*cargo
	for i := range n {
		k := kinds[i%len(kinds)] // each once, as far as there are units enough
		if i >= len(kinds) {
			at := r.IntN(total)
			for _, k = range kinds {
				if at -= k.weight; at < 0 {
					break
				}
			}
		}
		// No name is the beginning of another one, which would be found instead of one that is gone.
		all = append(all, &cargo{name: fmt.Sprintf("%s-%03d", k.name, i), kind: k})
	}
	return all
}

// text is a unit file, another one at each call.
func (c *cargo) text(r *rand.Rand, ref string) string {
	body := c.kind.body(r)
	head := fmt.Sprintf("name: %s\nlabels: {turn: \"%d\"}\n", c.name, r.Uint32())
	if !strings.Contains(body, "stop_grace_period") && c.kind.name != "multi" {
		head += "stop_grace_period: 2s\n"
	}
	if !c.kind.mixed {
		head += "network: " + []string{"none", "none", "bridge", "host"}[r.IntN(4)] + "\n"
	}
	if c.kind.steady && !strings.Contains(body, "volumes:") && r.IntN(4) == 0 && !c.kind.mixed {
		head += "read_only: true\n"
	}
	if !c.kind.mixed && c.kind.steady && r.IntN(8) == 0 {
		head += "replicas: 2\n"
	}
	if r.IntN(3) == 0 {
		head += "userns: host\n"
	}
	pull := ""
	if r.IntN(3) == 0 {
		pull = []string{"always", "newer"}[r.IntN(2)]
	}
	if strings.Contains(body, "containers:") {
		return strings.ReplaceAll(head+body, "IMAGE", ref)
	}
	if pull != "" {
		head += "pull_policy: " + pull + "\n"
	}
	return head + "image: " + ref + "\n" + strings.ReplaceAll(body, "NAME", c.name)
}
