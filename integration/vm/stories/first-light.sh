#!/bin/bash
# The same binaries under systemd on pure cgroup v2: a unit with limits runs, the limits are there, an OOM kill is
# told from memory.events, and neither the death of daemon and keeper nor a daemon-reload disturbs a container.
set -euo pipefail
fail() { echo "FAIL: $*" >&2; journalctl -u wherry --no-pager -n 40 >&2 || true; cat /run/wherry/keeper.log >&2 || true; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: '$2', want '$3'"; echo "ok: $1: $2"; }
until_true() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; fail "never true: $*"; }

mkdir -p /usr/lib/wherry /etc/wherry/units
install -m 755 wherry /usr/bin/wherry
install -m 755 wherry-keeper /usr/lib/wherry/wherry-keeper
cat >/run/systemd/system/wherry.service <<'U'
[Service]
Type=notify
ExecStart=/usr/bin/wherry daemon
KillMode=process
Delegate=yes
Restart=always
RestartSec=100ms
U
systemctl daemon-reload
systemctl start wherry
is "daemon" "$(systemctl is-active wherry)" active
is "cgroup mode" "$(wherry ctl status --format json | tr -d ' \n' | grep -o '"cgroup_mode":"[a-z]*"')" '"cgroup_mode":"unified"'

./demo registry 127.0.0.1:5000 >/tmp/registry.out &
until_true test -s /tmp/registry.out
cat >lim.yaml <<'U'
image: 127.0.0.1:5000/web:latest
ports: ["8080:8080"]
restart: always
resources: {limits: {memory: 96MiB, cpus: 0.5, pids: 40}}
U
wherry ctl apply --timeout 2m lim.yaml
wherry ctl status
cg=/sys/fs/cgroup$(wherry ctl inspect --format '{{(index .Instances 0).Cgroup}}' lim)
is memory.max "$(cat "$cg/memory.max")" 100663296
is memory.swap.max "$(cat "$cg/memory.swap.max")" 0
is memory.oom.group "$(cat "$cg/memory.oom.group")" 1
is pids.max "$(cat "$cg/pids.max")" 40
is cpu.max "$(cat "$cg/cpu.max")" "50000 100000"
until_true curl -fsS http://127.0.0.1:8080/
curl -fsS http://127.0.0.1:8080/

pid() { wherry ctl inspect -f '{{.State.Pid}}' lim; }
p=$(pid)
[ "$p" -gt 1 ] || fail "pid $p"
keeper=$(wherry ctl status --format json | tr -d ' \n' | grep -o '"keeper_pid":[0-9]*' | cut -d: -f2)
kill -9 "$(systemctl show -P MainPID wherry)"
until_true wherry ctl status
is "pid after kill -9 of the daemon" "$(pid)" "$p"
kill -9 "$keeper"
sleep 1
until_true wherry ctl exec lim /web true
is "pid after kill -9 of the keeper" "$(pid)" "$p"
systemctl restart wherry
is "pid after a restart of the service" "$(pid)" "$p"
systemctl daemon-reload
is "memory.max after daemon-reload" "$(cat "$cg/memory.max")" 100663296
curl -fsS http://127.0.0.1:8080/

first=$p
kill -9 "$(cat "/proc/$p/task/$p/children")"
healed() { [ "$(pid)" != "$first" ] && [ "$(pid)" != 0 ] && curl -fsS http://127.0.0.1:8080/; }
until_true healed
echo "ok: healed as pid $(pid)"
wherry ctl rm -f lim
gone() { ! ls -d /sys/fs/cgroup/wherry/lim* 2>/dev/null; }
until_true gone
echo "ok: nothing left"
