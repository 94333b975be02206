package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// figure is one thing that is compared.
type figure struct {
	group, name string
	unit        string  // "": a number of things; "KiB"
	value       float64 // what it is
	share       float64 // how much more is no leak: of what it was,
	room        float64 // or at least this much
	steady      bool    // it is the same every time when nothing happens
}

// measures are all figures of one moment, in their order.
type measures struct {
	dir   string // of the soak
	list  []figure
	lists map[string][]string // what is counted, where that says something
}

func (m *measures) add(group, name string, n int) {
	m.list = append(m.list, figure{group: group, name: name, value: float64(n), steady: true})
}

func (m *measures) allow(group, name, unit string, value, share, room float64) {
	m.list = append(m.list, figure{group: group, name: name, unit: unit, value: value, share: share, room: room})
}

func (m *measures) find(group, name string) *figure {
	for i := range m.list {
		if f := &m.list[i]; f.group == group && f.name == name {
			return f
		}
	}
	return nil
}

// quiet is how long what goes on may take to end: removals, connections of a registry that
// nobody uses any more, memory that is given back.
const quiet = 4 * time.Minute

// measure waits until nothing changes any more, or all is as it was before, and measures.
func (s *soak) measure(ctx context.Context, before *measures) (*measures, error) {
	same := 0
	var last *measures
	for end := time.Now().Add(quiet); ; pause(ctx, time.Second) {
		now, err := s.look(ctx)
		if err != nil {
			return nil, err
		}
		if last != nil && steady(last, now) {
			same++
		} else {
			same = 0
		}
		last = now
		if before == nil && same >= 6 || before != nil && same >= 2 && len(compare(io.Discard, before, now)) == 0 || time.Now().After(end) {
			return now, nil
		}
	}
}

func steady(a, b *measures) bool {
	pick := func(m *measures) (l []figure) {
		for _, f := range m.list {
			if f.steady {
				l = append(l, f)
			}
		}
		return l
	}
	return slices.Equal(pick(a), pick(b))
}

// look measures once.
func (s *soak) look(ctx context.Context) (*measures, error) {
	m := &measures{dir: s.h.dir, lists: map[string][]string{}}
	s.h.client.Close() // our own connections are none of its business
	v, err := s.h.client.Vitals(ctx, api.VitalsRequest{Collect: true})
	if err != nil {
		return nil, fmt.Errorf("vitals: %w", err)
	}
	if v.Keeper == nil {
		return nil, fmt.Errorf("vitals: the keeper does not tell")
	}
	for _, p := range []struct {
		name string
		of   api.ProcessVitals
	}{{"daemon", v.Daemon}, {"keeper", *v.Keeper}} {
		m.allow(p.name, "goroutines", "", float64(p.of.Goroutines), 0, 2)
		m.allow(p.name, "heap in use", "KiB", float64(p.of.Heap)/1024, 0.25, 2048)
		m.process(p.name, p.of.Pid)
	}
	m.host(s.h)
	m.disk(s.h)
	return m, m.database(s.h)
}

// disk measures what stands below the root, and counts what stands below the run folder.
func (m *measures) disk(h *host) {
	entries, _ := os.ReadDir(h.root)
	for _, e := range entries {
		name := e.Name()
		kib, files := usageOf(filepath.Join(h.root, name))
		switch {
		case name == "events": // old ones go when there are too many
			m.allow("disk", name, "KiB", kib, 0, 80<<10)
		case name == "state.db": // its free pages are used again: see below
			m.allow("disk", name, "KiB", kib, 1, 8<<10)
		case name == "keeper", strings.HasSuffix(name, ".db"), strings.HasSuffix(name, ".lock"):
			m.allow("disk", name, "KiB", kib, 0.1, 256)
		default:
			m.allow("disk", name, "KiB", kib, 0, 64)
			m.add("files", name, files)
		}
	}
	entries, _ = os.ReadDir(h.run)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		_, files := usageOf(filepath.Join(h.run, e.Name()))
		if e.Name() == "seccomp" { // one filter for each way to be confined
			m.allow("run folder", e.Name(), "", float64(files), 0, 8)
			continue
		}
		m.add("run folder", e.Name(), files)
		m.lists["run folder "+e.Name()] = namesIn(filepath.Join(h.run, e.Name()))
	}
}

// usageOf is what a folder takes on disk, and how many files and folders are in it.
func usageOf(dir string) (kib float64, files int) {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if p != dir {
			files++
		}
		if info, err := d.Info(); err == nil {
			kib += float64(blocks(info)) / 2
		}
		return nil
	})
	return kib, files
}

func namesIn(dir string) (l []string) {
	_ = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err == nil && p != dir {
			l = append(l, strings.TrimPrefix(p, dir+"/"))
		}
		return nil
	})
	return l
}

// compare prints both sides and lists the figures that have grown too much.
func compare(out io.Writer, before, after *measures) (leaks []string) {
	fmt.Fprintf(out, "%-12s %-28s %12s %12s %12s\n", "", "", "before", "after", "allowed")
	var all []figure
	all = append(all, after.list...)
	for _, f := range before.list {
		if after.find(f.group, f.name) == nil {
			f.value = 0
			all = append(all, f)
		}
	}
	for _, f := range all {
		was := 0.0
		if b := before.find(f.group, f.name); b != nil {
			was = b.value
		}
		most := was + max(was*f.share, f.room)
		mark := ""
		if f.value > most {
			mark = "  LEAK"
			leaks = append(leaks, fmt.Sprintf("%s %s %.0f to %.0f %s, at most %.0f", f.group, f.name, was, f.value, f.unit, most))
		}
		fmt.Fprintf(out, "%-12s %-28s %12.0f %12.0f %12.0f %s%s\n", f.group, f.name, was, f.value, most, f.unit, mark)
		if key := f.group + " " + f.name; mark != "" {
			for _, l := range after.lists[key] {
				if !slices.Contains(before.lists[key], l) {
					fmt.Fprintf(out, "%14s+ %s\n", "", l)
				}
			}
		}
	}
	return leaks
}

// explain tells what the processes are doing that have grown.
func (s *soak) explain(ctx context.Context) {
	v, err := s.h.client.Vitals(ctx, api.VitalsRequest{Stacks: true})
	if err != nil {
		return
	}
	dir := s.h.keepLogs()
	_ = os.WriteFile(dir+"/daemon.stacks", []byte(v.Daemon.Stacks), 0o644)
	if v.Keeper != nil {
		_ = os.WriteFile(dir+"/keeper.stacks", []byte(v.Keeper.Stacks), 0o644)
	}
}
