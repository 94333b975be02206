package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// report tells what was done.
func (s *soak) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nOPERATION\tDONE\tREFUSED\tCUT OFF\tLONGEST\n")
	total := tally{}
	for _, name := range slices.Sorted(maps.Keys(s.counts)) {
		c := s.counts[name]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%v\n", name, c.done, c.refused, c.cut, c.longest.Round(time.Millisecond))
		total.done, total.refused, total.cut = total.done+c.done, total.refused+c.refused, total.cut+c.cut
	}
	fmt.Fprintf(t, "all\t%d\t%d\t%d\t\n", total.done, total.refused, total.cut)
	_ = t.Flush()
	w := s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Printf("\nkills: %s\nends of programs: %s\nevents: %s\n", counted(s.h.kills), counted(w.byEnd), counted(w.events))
	fmt.Printf("lines of counters checked: %d; ctl status: %d times, the longest %v\n\n", w.lines, w.asked, w.worst.Round(time.Millisecond))
}

func counted(m map[string]int) string {
	var l []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		l = append(l, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(l, ", ")
}

// tell says how things are, in one line.
func (w *watch) tell(ctx context.Context) {
	s := w.s
	v, err := s.h.client.Vitals(ctx, api.VitalsRequest{})
	if err != nil || v.Keeper == nil {
		return
	}
	units, err := s.h.client.Units(ctx)
	if err != nil {
		return
	}
	run := 0
	for _, u := range units {
		run += u.Running
	}
	done := 0
	s.mu.Lock()
	for _, t := range s.counts {
		done += t.done
	}
	failures := len(s.failures)
	s.mu.Unlock()
	s.o.say("%d operations, %d failures, %d units, %d instances run; daemon %s; keeper %s", done, failures, len(units), run,
		oneProcess(v.Daemon), oneProcess(*v.Keeper))
}

func oneProcess(v api.ProcessVitals) string {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.Pid))
	return fmt.Sprintf("%.0f MiB, %d descriptors, %d goroutines", field(fmt.Sprintf("/proc/%d/smaps_rollup", v.Pid), "Pss:")/1024, len(fds), v.Goroutines)
}
