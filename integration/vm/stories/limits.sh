#!/bin/bash
# seconds: 150
# cpus: 2
# Limits on pure cgroup v2, below wherry.slice/wherry-cargo.service: every one is read back from the kernel, altered by `ctl
# update` and by a changed unit file without a restart, and refused whole where one of them cannot be set; what is kept and
# weighed holds at every level; what lack of memory ends, both ways; pauses; pressure; nothing above ours is altered.
. ./lib.sh
shares() { (cd /sys/fs/cgroup && grep -H . cgroup.subtree_control ./*/cgroup.subtree_control); }
echo "== the runtime by itself"
WHERRY_TEST_KEEPER=$PWD/wherry-keeper proven ./runtime.test TestLimitsAreReadBack

echo "== under the daemon"
install_wherry
registry
disk=/dev/$(lsblk -dno NAME -e 7,11 | head -n1)
dd if=/dev/zero of=/var/swap bs=1M count=32 status=none && chmod 600 /var/swap && mkswap -q /var/swap && swapon /var/swap
shares >before
cat >lim.yaml <<U
image: $image
command: [sh, -c, "while :; do echo tick; sleep 1; done"]
stop_grace_period: 1s
userns: host
devices: ["$disk:/dev/disk:r"]
cpuset: "0"
blkio_config:
  device_read_bps: [{path: $disk, rate: 1MiB}]
  device_write_iops: [{path: $disk, rate: 500}]
resources:
  reservations: {cpus: 0.5, memory: 16MiB}
  limits: {memory: 96MiB, memory_high: 80MiB, swap: 8MiB, cpus: 0.5, pids: 40}
U
w validate lim.yaml
w apply --timeout 5m lim.yaml
g=$(group lim) pid=$(inst lim '{{.Pid}}')
run=$(dirname "$g") cargo=/sys/fs/cgroup/wherry.slice/wherry-cargo.service
is "its place" "$(dirname "$run")" "$cargo"
same() { is "the pid after $1" "$(inst lim '{{.Pid}}')" "$pid"; }
has() { is "$1" "$(cat "$g/$1")" "$2"; }
has memory.max 100663296
has memory.high 83886080
has memory.low 16777216
has memory.swap.max 8388608
has memory.oom.group 1
has cpu.max "50000 100000"
has cpu.weight 59
has cpuset.cpus 0
has cpuset.cpus.effective 0
has pids.max 40
is io.max "$(cut -d' ' -f2- "$g/io.max")" "rbps=1048576 wbps=max riops=max wiops=500"
is "the weight of its run" "$(cat "$run/cpu.weight")" 59
for level in "$run" "$cargo" "$(dirname "$cargo")"; do until_true grep -qx 16777216 "$level/memory.low"; done
is "what systemd knows of it" "$(systemctl show wherry-cargo -p MemoryLow --value)" 16777216

echo "== they hold"
echo 3 >/proc/sys/vm/drop_caches
began=$(awk '{print int($1 * 10)}' /proc/uptime)
w exec lim sh -c 'head -c 4194304 /dev/disk >/dev/null'
took=$(($(awk '{print int($1 * 10)}' /proc/uptime) - began))
[ "$took" -ge 20 ] || fail "4 MiB at 1 MiB a second in $took tenths of a second"
echo "ok: io.max holds"
w stats --no-stream lim
grep -o 'rbytes=[0-9]*' "$g/io.stat" | awk -F= '{n += $2} END {exit n < 4194304}' || fail "read from the disk: $(cat "$g/io.stat")"
w stats --no-stream --format json lim >stats.json
for key in '"cpu"' '"memory"' '"io"' some_total_usec; do grep -q "$key" stats.json || fail "no $key in stats"; done
[ "$(grep -o 'total=[1-9][0-9]*' "$g/io.pressure" | head -n1)" ] || fail "no pressure of a disk that is waited for"
echo "ok: pressure of the disk: $(head -n1 "$g/io.pressure")"

echo "== altered live"
w update lim --memory 128m --pids 50 --cpus 1 --cpuset 0-1
has memory.max 134217728
has memory.swap.max 8388608
has pids.max 50
has cpu.max "100000 100000"
has cpuset.cpus 0-1
same update
w apply lim.yaml
has memory.max 134217728
w update lim --cpuset 0-99 && fail "processors that are not there"
if said=$(w update lim --memory 1m 2>&1); then fail "a limit that nothing starts with"; fi
like "too little" "$said" "MiB"
sed -i 's/memory: 96MiB/memory: 112MiB/; s/memory: 16MiB/memory: 24MiB/; /device_read_bps/d' lim.yaml
w apply lim.yaml
until_true grep -qx 117440512 "$g/memory.max"
has pids.max 40
has cpuset.cpus 0
has memory.low 25165824
until_true grep -qx 25165824 "$(dirname "$cargo")/memory.low"
is io.max "$(cut -d' ' -f2- "$g/io.max")" "rbps=max wbps=max riops=max wiops=500"
same "another file"
systemctl daemon-reload
has memory.max 117440512
is "memory.low of cargo after daemon-reload" "$(cat "$cargo/memory.low")" 25165824
is "memory.low of the run after daemon-reload" "$(cat "$run/memory.low")" 25165824
systemctl restart wherry
until_true serves
same "a restart of the daemon"
w pause lim
has cgroup.freeze 1
grep -qx "frozen 1" "$g/cgroup.events" || fail "not frozen"
w resume lim
has cgroup.freeze 0
w events >events.txt || true
grep -q 'limits.memory' events.txt || fail "no event of the update"

echo "== weights of devices"
printf 'image: %s\ncommand: [sleep, "100000"]\nstop_grace_period: 1s\nblkio_config: {weight: 300}\n' "$image" >weight.yaml
file=io.weight
[ ! -e "$g/io.bfq.weight" ] || file=io.bfq.weight
if [ -e "$g/$file" ]; then
	w apply --timeout 5m weight.yaml
	like "$file" "$(cat "$(group weight)/$file")" "$([ $file = io.weight ] && echo 2930 || echo 300)"
	is "$file of its run" "$(cat "$(dirname "$(group weight)")/$file")" "$(cat "$(group weight)/$file")"
	w rm -f weight
else
	if said=$(w validate weight.yaml 2>&1); then fail "a weight that this kernel has not got"; fi
	like "no weights" "$said" "BFQ"
fi

echo "== lack of memory"
cat >eats.yaml <<U
image: $image
command: [sh, -c, "sleep 100000 & tail /dev/zero; echo survived; sleep 100000"]
restart: no
resources: {limits: {memory: 32MiB}}
U
sed '/^restart/s/$/\noom: process\nstop_grace_period: 1s/' eats.yaml >single.yaml
w apply --no-wait eats.yaml single.yaml
killed() { w inspect --format json eats >exits.json && grep -q "for lack of memory, limit 32 MiB" exits.json; }
until_true killed
grep -q '"limit": *33554432' exits.json || fail "its limit is not with its end"
grep -q '"pressure"' exits.json || fail "its pressure is not with its end"
until_true sh -c "wherry ctl logs single | grep -q survived"
running single || fail "a process that was killed has taken its container along"
is memory.oom.group "$(cat "$(group single)/memory.oom.group")" 0
grep -q "^oom_kill [1-9]" "$(group single)/memory.events" || fail "no kill is counted"

echo "== the end"
w rm -f lim eats single
until_true grep -qx 0 "$(dirname "$cargo")/memory.low"
is "memory.low of cargo" "$(cat "$cargo/memory.low")" 0
is "groups" "$(find "$cargo" -name '*.1-*')" ""
shares | diff before - || fail "somebody has changed what is shared out"
swapoff /var/swap
echo "the limits hold"
