#!/bin/bash
# Limits on pure cgroup v2: every one is read back from the kernel, altered by `ctl update` and by a changed unit
# file without a restart, and refused whole where one of them cannot be set; what lack of memory ends, both ways; pauses.
set -euo pipefail
fail() { echo "FAIL: $*" >&2; journalctl -u wherry --no-pager -n 40 >&2 || true; cat /run/wherry/keeper.log >&2 || true; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: '$2', want '$3'"; echo "ok: $1: $2"; }
until_true() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; fail "never true: $*"; }

echo "== the runtime by itself"
WHERRY_TEST_KEEPER=$PWD/wherry-keeper ./runtime.test -test.run 'TestLimitsAreReadBack|TestMemoryInUse|TestOOMOfGroup|TestPauseAndResume' ||
  fail "the runtime's own tests"

echo "== under the daemon"
mkdir -p /usr/lib/wherry /etc/wherry/units
install -m 755 wherry /usr/bin/wherry
install -m 755 wherry-keeper /usr/lib/wherry/wherry-keeper
cat >/run/systemd/system/wherry.service <<'U'
[Service]
Type=notify
ExecStart=/usr/bin/wherry daemon
KillMode=process
Delegate=yes
U
systemctl daemon-reload
systemctl start wherry
./demo registry 127.0.0.1:5000 >/tmp/registry.out &
until_true test -s /tmp/registry.out
disk=/dev/$(lsblk -dno NAME -e 7,11 | head -1)
cat >lim.yaml <<U
image: 127.0.0.1:5000/web:latest
cpuset: "0"
blkio_config:
  device_read_bps: [{path: $disk, rate: 10MiB}]
  device_write_iops: [{path: $disk, rate: 500}]
resources:
  reservations: {cpus: 0.5, memory: 16MiB}
  limits: {memory: 96MiB, memory_high: 80MiB, swap: 8MiB, cpus: 0.5, pids: 40}
U
wherry ctl validate lim.yaml
wherry ctl apply --timeout 2m lim.yaml
cg=/sys/fs/cgroup$(wherry ctl inspect --format '{{(index .Instances 0).Cgroup}}' lim)
pid=$(wherry ctl inspect --format '{{(index .Instances 0).Pid}}' lim)
same() { is "the pid after $1" "$(wherry ctl inspect --format '{{(index .Instances 0).Pid}}' lim)" "$pid"; }
is memory.max "$(cat "$cg/memory.max")" 100663296
is memory.high "$(cat "$cg/memory.high")" 83886080
is memory.low "$(cat "$cg/memory.low")" 16777216
is memory.swap.max "$(cat "$cg/memory.swap.max")" 8388608
is memory.oom.group "$(cat "$cg/memory.oom.group")" 1
is cpu.max "$(cat "$cg/cpu.max")" "50000 100000"
is cpu.weight "$(cat "$cg/cpu.weight")" 59
is cpuset.cpus "$(cat "$cg/cpuset.cpus")" 0
is pids.max "$(cat "$cg/pids.max")" 40
is io.max "$(cut -d' ' -f2- "$cg/io.max")" "rbps=10485760 wbps=max riops=max wiops=500"

wherry ctl update lim --memory 128m --pids 50 --cpus 1 --cpuset 0-1
is "memory.max after update" "$(cat "$cg/memory.max")" 134217728
is "memory.swap.max after update" "$(cat "$cg/memory.swap.max")" 8388608
is "pids.max after update" "$(cat "$cg/pids.max")" 50
is "cpu.max after update" "$(cat "$cg/cpu.max")" "100000 100000"
is "cpuset.cpus after update" "$(cat "$cg/cpuset.cpus")" 0-1
same update
wherry ctl apply lim.yaml
is "memory.max after the same file" "$(cat "$cg/memory.max")" 134217728
wherry ctl update lim --cpuset 0-99 && fail "processors that are not there"
sed -i 's/memory: 96MiB/memory: 112MiB/; /device_read_bps/d' lim.yaml
wherry ctl apply lim.yaml
until_true grep -qx 117440512 "$cg/memory.max"
is "pids.max after another file" "$(cat "$cg/pids.max")" 40
is "io.max after another file" "$(cut -d' ' -f2- "$cg/io.max")" "rbps=max wbps=max riops=max wiops=500"
same "another file"
systemctl restart wherry
same "a restart of the daemon"
wherry ctl pause lim
is "frozen" "$(cat "$cg/cgroup.freeze")" 1
wherry ctl list lim
wherry ctl resume lim
is "thawed" "$(cat "$cg/cgroup.freeze")" 0
wherry ctl top lim
wherry ctl stats --no-stream lim
wherry ctl events >events.txt || true
grep -q 'limits.memory' events.txt || fail "no event of the update"
wherry ctl rm -f lim
echo "the limits hold"
