package keeper

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/runtime"
)

// Lines of Linux 6.18 and of 6.1, which has fewer columns.
const newKernelLog = `tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name
[   9717]     0  9717      311      101       64       37         0    40960        0             0 wherry-init
[   9718]     0  9718     8304     8000     7992        8         0   102400        0             0 a b
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/w/web.1-7f3k/app,task_memcg=/w/web.1-7f3k/app,task=a b,pid=9718,uid=0
Memory cgroup out of memory: Killed process 9718 (a b) total-vm:33216kB, anon-rss:31968kB
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name
[     77]     0    77      311        1       64       37         0    40960        0             0 other
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/w/db.1-xxxx/app,task_memcg=/w/db.1-xxxx/app,task=other,pid=77,uid=0
`

const oldKernelLog = `Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[    812]     0   812     1000       10    40960        0          -900 sh
[    813]  1000   813     2000       20    40960        0             0 tail
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=sub,mems_allowed=0,oom_memcg=/above,task_memcg=/above/w/web.1-7f3k/app/sub,task=tail,pid=813,uid=1000
`

func TestOOMParser(t *testing.T) {
	page := int64(os.Getpagesize())
	tests := []struct {
		name, log, group string
		want             *oomLog
	}{
		{"new", newKernelLog, "/w/web.1-7f3k/app", &oomLog{
			victim: runtime.Task{Pid: 9718, Comm: "a b", RSS: 8000 * page},
			tasks:  []runtime.Task{{Pid: 9718, Comm: "a b", RSS: 8000 * page}, {Pid: 9717, Comm: "wherry-init", RSS: 101 * page}},
		}},
		{"old, a group below ours", oldKernelLog, "/w/web.1-7f3k/app", &oomLog{
			victim: runtime.Task{Pid: 813, Comm: "tail", RSS: 20 * page},
			tasks:  []runtime.Task{{Pid: 813, Comm: "tail", RSS: 20 * page}, {Pid: 812, Comm: "sh", RSS: 10 * page}},
		}},
		{"another's", newKernelLog, "/w/web.1-7f3k/ap", nil},
		{"no table", "oom-kill:x,task_memcg=/w/a,task=t,pid=5,uid=0", "/w/a", &oomLog{victim: runtime.Task{Pid: 5, Comm: "t"}, tasks: []runtime.Task{}}},
		{"nonsense", "oom-kill:\n[\n[ ]\noom-kill:,task_memcg=/w/a,task=,pid=x", "/w/a", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := oomParser{group: tt.group}
			for line := range strings.Lines(tt.log) {
				p.line(strings.TrimSuffix(line, "\n"))
			}
			if !reflect.DeepEqual(p.found, tt.want) && !(p.found != nil && tt.want != nil && len(p.found.tasks)+len(tt.want.tasks) == 0 && p.found.victim == tt.want.victim) {
				t.Errorf("found %+v, want %+v", p.found, tt.want)
			}
		})
	}
}

func FuzzOOMParser(f *testing.F) {
	f.Add(newKernelLog)
	f.Add(oldKernelLog)
	f.Fuzz(func(t *testing.T, log string) {
		p := oomParser{group: "/w/web.1-7f3k/app"}
		for line := range strings.Lines(log) {
			p.line(line)
		}
		if p.found != nil && len(p.found.tasks) > runtime.MaxTasks {
			t.Fatal("too many tasks")
		}
	})
}

func TestLargestIsBounded(t *testing.T) {
	var tasks []runtime.Task
	for i := range 3 * runtime.MaxTasks {
		tasks = append(tasks, runtime.Task{Pid: i + 1, Comm: "t", RSS: int64(i)})
	}
	got := largest(tasks)
	if len(got) != runtime.MaxTasks || got[0].Pid != len(tasks) {
		t.Errorf("%d tasks, the first %+v", len(got), got[0])
	}
}
