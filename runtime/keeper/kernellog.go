package keeper

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// oomLog is what the kernel's log says of a kill for lack of memory.
type oomLog struct {
	victim runtime.Task
	tasks  []runtime.Task // of the group at that moment; empty with vm.oom_dump_tasks=0
}

// oomParser reads the kernel's lines one by one and keeps the last kill in group.
type oomParser struct {
	group   string
	columns []string // of the table of tasks
	tasks   []runtime.Task
	found   *oomLog
}

// line takes one message, without what stands before the semicolon.
func (p *oomParser) line(s string) {
	switch {
	case strings.HasPrefix(s, "Tasks state ("):
		p.columns, p.tasks = nil, nil
	case strings.HasPrefix(s, "[") && strings.Contains(s, "total_vm"):
		p.columns = strings.Fields(strings.NewReplacer("[", " ", "]", " ").Replace(s))
		p.tasks = nil
	case strings.HasPrefix(s, "[") && p.columns != nil:
		if t, ok := p.task(s); ok {
			p.tasks = append(p.tasks, t)
		}
	case strings.HasPrefix(s, "oom-kill:"):
		p.kill(s)
		p.columns, p.tasks = nil, nil
	}
}

// task reads a row of the table. Its columns differ between kernels; the name
// comes last, and may hold spaces.
func (p *oomParser) task(s string) (t runtime.Task, ok bool) {
	rest := strings.NewReplacer("[", " ", "]", " ").Replace(s)
	for i, column := range p.columns {
		rest = strings.TrimLeft(rest, " ")
		word, after, _ := strings.Cut(rest, " ")
		switch {
		case i == len(p.columns)-1:
			t.Comm = strings.TrimSpace(rest)
		case column == "pid":
			t.Pid, _ = strconv.Atoi(word)
		case column == "rss":
			pages, _ := strconv.ParseInt(word, 10, 64)
			t.RSS = pages * int64(os.Getpagesize())
		}
		rest = after
	}
	return t, t.Pid > 0 && t.Comm != ""
}

// kill reads the summary, such as
// oom-kill:constraint=CONSTRAINT_MEMCG,...,oom_memcg=/a,task_memcg=/a/b,task=tail,pid=42,uid=0
func (p *oomParser) kill(s string) {
	_, group, _ := strings.Cut(s, ",task_memcg=")
	group, rest, ok := strings.Cut(group, ",task=")
	// Our own view of the groups may begin further down than the kernel's.
	if !ok || !strings.HasSuffix(group, p.group) && !strings.Contains(group, p.group+"/") {
		return
	}
	at := strings.LastIndex(rest, ",pid=")
	if at < 0 {
		return
	}
	number, _, _ := strings.Cut(rest[at+len(",pid="):], ",")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return
	}
	p.found = &oomLog{victim: runtime.Task{Pid: pid, Comm: rest[:at]}, tasks: largest(p.tasks)}
	for _, t := range p.tasks {
		if t.Pid == pid {
			p.found.victim.RSS = t.RSS
		}
	}
}

// largest are the tasks that are worth keeping.
func largest(tasks []runtime.Task) []runtime.Task {
	tasks = slices.Clone(tasks)
	slices.SortStableFunc(tasks, func(a, b runtime.Task) int { return cmp.Compare(b.RSS, a.RSS) })
	return tasks[:min(len(tasks), runtime.MaxTasks):min(len(tasks), runtime.MaxTasks)]
}

// maxKernelLog bounds how many messages are read: a log that grows faster than
// we read must not keep us.
const maxKernelLog = 1 << 16

// readKernelLog looks for the last kill in group; nil if the log has none, or cannot be read.
func readKernelLog(group string) *oomLog {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	p := oomParser{group: group}
	buf := make([]byte, 8192) // one message each
	for range maxKernelLog {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) {
			continue // overwritten meanwhile: the next one is the oldest there is
		}
		if err != nil || n <= 0 {
			break
		}
		_, text, _ := strings.Cut(string(buf[:n]), ";")
		text, _, _ = strings.Cut(text, "\n")
		p.line(strings.ReplaceAll(text, `\x5c`, `\`)) // so the file shows a backslash, as the names of some units have
	}
	return p.found
}
