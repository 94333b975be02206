#!/bin/bash
# seconds: 80
# cgroup_driver: systemd. Each run stands in a scope of systemd's, in wherry.slice, whose name and description say what it is;
# the limits below it are ours. What stays as it is: containers of the other driver, limits and device rules over daemon-reload,
# daemon-reexec and set-property, pids over kill -9 of keeper and daemon. Kills for lack of memory are explained, nothing is
# left of what ended or could not start, and no group above ours shares out more than systemd wants.
. ./lib.sh
shares() { (cd /sys/fs/cgroup && grep -H . cgroup.subtree_control ./*/cgroup.subtree_control); }
install_wherry
registry
cat >old.yaml <<U
image: $image
command: [sleep, "1000000"]
stop_grace_period: 1s
U
w apply --timeout 5m old.yaml
old=$(inst old '{{.Pid}}')
like "a run of cgroupfs" "$(group old)" /sys/fs/cgroup/wherry.slice/wherry-cargo.service/old.1-
shares >before

echo "== another driver"
echo "cgroup_driver: systemd" >>/etc/wherry/wherry.yaml
systemctl restart wherry
until_true serves
is "the old run's pid" "$(inst old '{{.Pid}}')" "$old"
disk=/dev/$(lsblk -dno NAME -e 7,11 | head -n1)
cat >web.yaml <<U
image: $image
command: [sh, -c, "while :; do echo tick; sleep 1; done"]
stop_grace_period: 1s
userns: host
devices: ["$disk:/dev/disk:r"]
resources:
  reservations: {cpus: 0.5, memory: 16MiB}
  limits: {memory: 64MiB, swap: 0, cpus: 0.5, pids: 50}
U
w apply --timeout 5m web.yaml
g=$(group web) pid=$(inst web '{{.Pid}}')
scope=$(basename "$(dirname "$g")")
like scope "$scope" wherry-web.1-
is "its place" "$(dirname "$(dirname "$g")")" /sys/fs/cgroup/wherry.slice
property() { systemctl show "$scope" -p "$1" --value; }
is description "$(property Description)" "wherry: unit web, instance web.1"
is state "$(property ActiveState)" active
is slice "$(property Slice)" wherry.slice
is delegated "$(property Delegate)" yes
is "its share of the processors" "$(property CPUWeight)" 59
is "memory kept for it" "$(property MemoryLow)" 16777216
until_true grep -qx 16777216 /sys/fs/cgroup/wherry.slice/memory.low
is tasks "$(property TasksMax)" infinity
is "kept if it fails" "$(property CollectMode)" inactive-or-failed
like "ordered before" "$(property Before)" wherry-shutdown.service
is "the scope's own processes" "$(cat "$(dirname "$g")/cgroup.procs")" ""
is "who keeps it" "$(cat "/proc/$(cat "$(dirname "$g")/.keep/cgroup.procs")/comm")" wherry-scope
files() { (cd "$g" && grep -H . memory.max memory.low memory.swap.max memory.oom.group cpu.max cpu.weight pids.max cgroup.subtree_control); }
files >limits
cat limits
for line in memory.max:67108864 memory.swap.max:0 "cpu.max:50000 100000" pids.max:50; do grep -qx "$line" limits || fail "no $line"; done
devices() { w exec web sh -c '[ "$(head -c512 /dev/disk | wc -c)" = 512 ] && echo a >/dev/null && ! (: >>/dev/disk) 2>/dev/null'; }
devices || fail "devices"
same() {
	is "the pid after $1" "$(inst web '{{.Pid}}')" "$pid"
	files | diff limits - || fail "limits after $1"
	devices >/dev/null || fail "devices after $1"
	is "the scope after $1" "$(property ActiveState)" active
}

echo "== systemd"
systemctl daemon-reload
same daemon-reload
systemctl set-property --runtime "$scope" MemoryMax=500M CPUWeight=50 TasksMax=4000
same set-property
is "the scope's own limit" "$(cat "$(dirname "$g")/memory.max")" 524288000
systemctl daemon-reexec
same daemon-reexec

echo "== keeper and daemon"
kill -9 "$(systemctl show wherry-keeper -p MainPID --value)"
until_true w exec web true
same "the keeper's end"
kill -9 "$(systemctl show wherry -p MainPID --value)"
until_true serves
same "the daemon's end"
w update web --memory 96m --pids 60
is memory.max "$(cat "$g/memory.max")" 100663296
is pids.max "$(cat "$g/pids.max")" 60
is "the old run's pid" "$(inst old '{{.Pid}}')" "$old"
like "the old run's group" "$(group old)" wherry-cargo.service

echo "== lack of memory"
cat >eats.yaml <<U
image: $image
command: [sh, -c, "sleep 1; exec tail /dev/zero"]
restart: no
resources: {limits: {memory: 32MiB}}
U
cat >single.yaml <<U
image: $image
command: [sh, -c, "tail /dev/zero; echo survived; exec sleep 100000"]
stop_grace_period: 1s
oom: process
resources: {limits: {memory: 32MiB}}
U
w apply --no-wait eats.yaml single.yaml
killed() { w inspect --format json eats | grep -q "for lack of memory, limit 32 MiB"; }
until_true killed
until_true sh -c "wherry ctl logs single | grep -q survived"
running single || fail "a process that was killed has taken its container along"
single=$(basename "$(dirname "$(group single)")")
is "its scope" "$(systemctl show "$single" -p ActiveState --value)" active

echo "== several containers with one process namespace, and what cannot start"
cat >pod.yaml <<U
pid: shared
containers:
  a: {image: $image, command: [sleep, "100000"], stop_grace_period: 1s, resources: {limits: {memory: 32MiB}}}
  b: {image: $image, command: [sleep, "100000"], stop_grace_period: 1s, resources: {limits: {pids: 20}}}
U
cat >lost.yaml <<U
image: $image
command: [/no/such/program]
restart: no
U
w apply --timeout 5m pod.yaml
is "one scope for both" "$(dirname "$(cont pod a '{{.Cgroup}}')")" "$(dirname "$(cont pod b '{{.Cgroup}}')")"
w apply --no-wait lost.yaml
until_true sh -c "wherry ctl status lost | grep -q no/such/program"
scopes() { systemctl list-units --all --no-legend --plain 'wherry-*.scope' | awk '{print $1}'; }
no_scope() { ! scopes | grep -q "^wherry-$1\.1-"; }
until_true no_scope lost
until_true no_scope eats

echo "== the end"
w stop web
until_true no_scope web
w start web
until_true running web
scope=$(basename "$(dirname "$(group web)")")
systemctl stop "$scope" # an operator's: the instance comes back in another one
another() { running web && [ "$(basename "$(dirname "$(group web)")")" != "$scope" ]; }
until_true another
shares | diff before - || fail "somebody has changed what is shared out"
w rm -f web eats single pod lost old
none() { [ -z "$(scopes)" ]; }
until_true none
until_true grep -qx 0 /sys/fs/cgroup/wherry.slice/memory.low
is "scopes that failed" "$(systemctl list-units --failed --no-legend --plain '*.scope')" ""
is "groups" "$(find /sys/fs/cgroup/wherry.slice -name '*.scope' -o -name '*.1-*')" ""
no_keep() { [ -z "$(cat /proc/[0-9]*/comm 2>/dev/null | grep -x wherry-scope || true)" ]; }
until_true no_keep # one that has ended is there until it is waited for

echo "== without D-Bus' daemon"
systemctl stop dbus.socket dbus.service 2>/dev/null || true
w apply --timeout 5m web.yaml
like "a scope" "$(group web)" /sys/fs/cgroup/wherry.slice/wherry-web.1-
w rm -f web
until_true none
! journalctl -u wherry-keeper --no-pager -o cat | grep level=ERROR || fail "the keeper was in trouble"

echo "== where it cannot be had"
echo "cgroup_driver: systemd" >other.yaml
mkdir units
unshare -m sh -c 'mount -t tmpfs none /run/systemd && exec timeout 60 wherry daemon --config other.yaml --root /tmp/r --run-dir /tmp/run --units units' >refused 2>&1 || true
like "the daemon's word" "$(cat refused)" "systemd is not PID 1 of this host"
