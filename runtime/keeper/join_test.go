package keeper

import (
	"maps"
	"testing"
)

func TestDoors(t *testing.T) {
	got, err := doors(map[string]string{
		"":             "/sys/fs/cgroup/unified/wherry/run/app",
		"cpu":          "/sys/fs/cgroup/cpu,cpuacct/wherry/run/app",
		"cpuacct":      "/sys/fs/cgroup/cpu,cpuacct/wherry/run/app",
		"name=systemd": "/sys/fs/cgroup/systemd/wherry/run/app",
	}, "/wherry/run/app")
	want := map[string]string{
		"/sys/fs/cgroup/cpu,cpuacct/wherry/run/app": "/sys/fs/cgroup/cpu,cpuacct",
		"/sys/fs/cgroup/systemd/wherry/run/app":     "/sys/fs/cgroup/systemd",
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := doors(map[string]string{"cpu": "/sys/fs/cgroup/cpu/other"}, "/wherry/run/app"); err == nil {
		t.Error("a folder that is not the group's is accepted")
	}
}
