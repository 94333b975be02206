package supervisor

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/wherry-run/wherry/supervisor/security"
)

func TestReadFact(t *testing.T) {
	proc := t.TempDir()
	for name, text := range map[string]string{
		"7/status":                "Name:\twherry-init\nUid:\t100005\t100005\t100005\t100005\nNoNewPrivs:\t1\nSeccomp:\t2\nCapBnd:\t0000000000000021\n",
		"7/uid_map":               "         0     100000      65536\n",
		"7/attr/current":          "wherry-default (enforce)\n",
		"7/attr/apparmor/current": "wherry-default (enforce)\n",
		"8/status":                "Uid:\t0\t0\t0\t0\nNoNewPrivs:\t0\nSeccomp:\t0\nCapBnd:\t0000000000000000\n",
		"8/uid_map":               "         0          0 4294967295\n",
		"8/attr/current":          "system_u:system_r:container_t:s0:c1,c2\x00",
	} {
		file := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pid, want := range map[int]security.Fact{
		7: {Pid: 7, UserNS: true, UID: 5, Seccomp: "filter", NoNewPrivileges: true, Capabilities: []string{"CHOWN", "KILL"}, AppArmor: "wherry-default (enforce)"},
		8: {Pid: 8, Seccomp: "none", Capabilities: []string{}, SELinux: "system_u:system_r:container_t:s0:c1,c2"},
	} {
		if got, ok := readFact(proc, pid); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%d: %+v", pid, got)
		}
	}
	for _, pid := range []int{0, -1, 9} {
		if _, ok := readFact(proc, pid); ok {
			t.Errorf("%d is a process", pid)
		}
	}
}
