#!/bin/bash
# seconds: 180
# The services as they are installed: nothing that happens to daemon, keeper, cargo or systemd itself disturbs a container. Limits, devices in
# use, terminals and pids stay, no line of a log is missing, ends that nobody saw are true, systemd's store is empty at the end.
# shellcheck source-path=SCRIPTDIR/.. disable=SC2016,SC2154,SC2086
. ./lib.sh
version=$(systemctl --version | sed -n '1s/[^0-9]*\([0-9]*\).*/\1/p')
shares() { find /sys/fs/cgroup -ignore_readdir_race -name cgroup.subtree_control -not -path '*/wherry.slice/*' -not -path '*.service/*' -exec grep -H '' {} + | sort; }
# To the end: who writes into a pipe that nobody reads any more has failed.
in_journal() { journalctl -u "$1" -o cat | grep "$2" >/dev/null; }
main() { systemctl show -P MainPID "$1"; }

mkdir -p /etc/systemd/system/wherry.service.d /etc/systemd/system/wherry-keeper.service.d
printf '[Unit]\nConditionPathExists=!/run/no-keeper\n' >/etc/systemd/system/wherry-keeper.service.d/test.conf
printf '[Service]\nWatchdogSec=15s\n' >/etc/systemd/system/wherry.service.d/test.conf
registry
install_wherry
shares >before
disk=$(lsblk -dno NAME -e 7,11 | head -1)
cat >box.yaml <<U
image: $image
userns: host
cap_add: [SYSLOG]
devices: [/dev/kmsg, "/dev/$disk:/dev/disk:r"]
tty: true
stdin_open: true
command: [sh]
resources: {limits: {memory: 64MiB, cpus: 0.5, pids: 64}}
U
cat >count.yaml <<U
image: $image
network: none
command: [sh, -c, "i=0; while :; do i=\$((i+1)); echo n-\$i; sleep 0.5; done"]
resources: {limits: {memory: 32MiB}}
U
cat >web.yaml <<U
image: 127.0.0.1:5000/web:latest
ports: ["8080:8080"]
resources: {limits: {memory: 96MiB, pids: 40}}
U
w apply --timeout 5m box.yaml count.yaml web.yaml
pid=$(inst box '{{.Pid}}') counter=$(inst count '{{.Pid}}') cg=$(group box)
like "its group" "$cg" /wherry.slice/wherry-cargo.service/box.1-
w update box --memory 80m

echo "== at first"
cat >probe.sh <<'U'
: </dev/null && head -c 16 /dev/urandom >/dev/null && : </dev/kmsg && dd if=/dev/disk of=/dev/null count=1 2>/dev/null && echo usable
U
w cp probe.sh box:/probe.sh
born() { cut -d' ' -f22 "/proc/$1/stat"; }
begun="$(born "$pid") $(born "$counter")"
usable() { [ "$(w exec box sh /probe.sh)" = usable ]; }
# Processes of before are there, with their limits; a new one opens the devices anew.
same() {
	is "processes $1" "$(born "$pid") $(born "$counter")" "$begun"
	is "limits $1" "$(cat "$cg"/{memory,pids,cpu}.max | xargs)" "83886080 64 50000 100000"
	until_true usable
	echo "ok: devices $1"
}
# The terminal of the first process is the keeper's alone to hold: whoever comes next must have it back.
typed=0
mkfifo keys
exec 9<>keys
terminal() {
	typed=$((typed + 1))
	script -qec "wherry ctl attach box" /dev/null <keys >attach.out 2>&1 &
	local attached=$!
	printf 'echo typed-$((%d * 1))\n' $typed >&9
	for _ in $(seq 1200); do grep -q "typed-$typed" attach.out && break; sleep 0.1; done
	grep -q "typed-$typed" attach.out || fail "terminal $1: $(cat -v attach.out; w logs --tail 5 box | cat -v; ps axf | tail -n 20)"
	printf '\020\021' >&9
	wait $attached || fail "attach $1: $(cat attach.out)"
	echo "ok: terminal $1"
}
store() { systemctl show -P NFileDescriptorStore wherry-keeper; }
same "at first"
terminal "at first"
if said=$(w exec box sh -c 'mknod /dev/mine b 7 0 && dd if=/dev/mine count=1' 2>&1); then fail "a device that was not given"; fi
like "a device that was not given" "$said" "Operation not permitted"
is "what a container inherits of the keeper's" "$(w exec box sh -c 'cat /proc/1/oom_score_adj /proc/self/oom_score_adj; ulimit -n; ulimit -Hn' | xargs)" "0 0 1024 524288"
is "the keeper's own" "$(cat "/proc/$(main wherry-keeper)/oom_score_adj")" -900
like "the tree" "$(systemd-cgls --no-pager /wherry.slice)" count.1-
until_true curl -fsS http://127.0.0.1:8080/

echo "== systemd's own doings"
systemctl daemon-reload
systemctl set-property --runtime wherry-cargo.service CPUWeight=90
systemctl daemon-reexec
same "after daemon-reload, set-property and daemon-reexec"

echo "== the keeper"
systemctl restart wherry-keeper
same "after its restart"
terminal "after its restart"
[ "$(store)" -ge 3 ] || fail "systemd's store has $(store)"
echo 'no: such: key' >/etc/wherry/wherry.yaml
kill -9 "$(main wherry-keeper)"
same "after kill -9"
rm /etc/wherry/wherry.yaml
terminal "after kill -9"
until_true in_journal wherry-keeper 'begins as the last one did' # of a spoilt wherry.yaml

echo "== the daemon"
touch calling
while [ -e calling ]; do wherry ctl status >/dev/null 2>>refused || echo refused >>refused; done &
caller=$!
while [ -e calling ]; do curl -fsS --unix-socket /run/wherry/wherry.sock http://wherry/v1/info >/dev/null 2>>refused || echo refused >>refused; done &
faster=$!
systemctl restart wherry
rm calling
wait $caller $faster
is "callers that were refused while it was restarted" "$(cat refused)" ""
same "after its restart"
kill -9 "$(main wherry)"
same "after kill -9"
restarts=$(systemctl show -P NRestarts wherry)
daemon=$(main wherry)
kill -STOP "$daemon"
replaced() { [ "$(systemctl show -P NRestarts wherry)" -gt "$restarts" ] && serves; }
until_true replaced
until_true in_journal wherry 'Watchdog timeout'
same "after the watchdog"

echo "== both"
kill -9 "$(main wherry)" "$(main wherry-keeper)"
same "after kill -9"
terminal "after kill -9"
systemctl restart wherry wherry-keeper
same "after a restart"

echo "== cargo"
kill -9 "$(main wherry-cargo)"
if systemctl start wherry-cargo 2>/dev/null; then echo "ok: started beside containers"; else
	[ "$version" -lt 254 ] || fail "not started beside containers"
fi
same "after kill -9 of cargo"
is "a new run" "$(w run --rm --network none --memory 16m $image sh -c 'echo made')" made

echo "== stopped and started"
# Before 254 the store does not outlive a stop: who stops both hangs up terminals.
[ "$version" -ge 254 ] || w rm -f box
mkdir -p /tmp/late
w run -d --name late --network none --restart no -v /tmp/late:/late $image sh -c 'until [ -e /late/now ]; do sleep 0.2; done; echo last; exit 9' >/dev/null
late=$(inst late '{{.Pid}}')
systemctl stop wherry wherry-keeper
w status 2>err && fail "somebody answers"
like "what is to be done" "$(cat err)" "systemctl start wherry"
is "nobody starts it again" "$(systemctl is-active wherry.service wherry.socket wherry-keeper.service | xargs || true)" "inactive inactive inactive"
touch /tmp/late/now
late_gone() { ! pgrep -P "$late"; } # its init stays until the output is in the log
until_true late_gone
touch /run/no-keeper
systemctl start --no-block wherry
explained() { w status 2>err || grep -q 'wherry-keeper.service does not run' err; }
until_true explained
until_true grep -q 'wherry-keeper.service does not run' err
like "what is to be done" "$(cat err)" "systemctl start wherry-keeper"
is "keepers that the daemon has started" "$(pgrep -cf -- '--own-cgroup' || true)" 0
rm /run/no-keeper
systemctl start wherry-keeper
until_true serves
is "the daemon has waited" "$(systemctl is-active wherry)" active
until_true stopped late
is "an end that nobody saw" "$(inst late '{{.Exit.Code}} {{.Exit.Unknown}}')" "9 false"
is "its last word" "$(w logs --no-prefix late)" last
if [ "$version" -ge 254 ]; then
	same "after stop and start"
	terminal "after stop and start"
fi
is "the counter" "$(born "$counter")" "${begun#* }"
first=$(inst web '{{.Pid}}')
kill -9 "$(cat "/proc/$first/task/$first/children")"
healed() { [ "$(inst web '{{.Pid}}')" != "$first" ] && curl -fsS http://127.0.0.1:8080/; }
until_true healed

echo "== what was said"
like "a failure among the daemon's" "$(journalctl -u wherry WHERRY_UNIT=late WHERRY_EVENT=exit -p warning -o cat)" "unit=late"
is "what is no failure" "$(journalctl -u wherry WHERRY_UNIT=count WHERRY_EVENT=start -p warning -o cat)" ""
like "the keeper's" "$(journalctl -u wherry-keeper PRIORITY=6 -o cat)" "keeper serves"
w logs --no-prefix count | sed -n 's/^n-//p' >numbers
sort -nu numbers >seen
[ "$(wc -l <seen)" -gt 30 ] || fail "only $(wc -l <seen) lines"
seq "$(tail -n1 seen)" | cmp -s - seen || fail "lines are missing: $(seq "$(tail -n1 seen)" | comm -3 - <(sort seen) | head)"
repeated=$(($(wc -l <numbers) - $(wc -l <seen)))
[ $repeated -le 10 ] || fail "$repeated lines stand there twice"
echo "ok: the log has every line of $(tail -n1 seen), $repeated twice"

echo "== nothing left"
w rm -f --glob '*'
empty() { [ "$(store)" = 0 ] && ! ls -d /sys/fs/cgroup/wherry.slice/wherry-cargo.service/*.[0-9]*; }
until_true empty
is "cargo" "$(systemctl start wherry-cargo; systemctl is-active wherry-cargo)" active
shares >after
diff before after || fail "the sharing of controllers outside our subtree has changed"
is "mounts" "$(grep -c ' /var/lib/wherry\| /run/wherry' /proc/self/mountinfo || true)" 0
no_links() { [ -z "$(ip -o link | grep veth || true)" ]; }
until_true no_links
is "processes" "$(pgrep -c wherry-init || true)" 0
systemctl stop wherry wherry-keeper wherry.slice
is "cargo, without containers" "$(systemctl is-active wherry-cargo || true)" inactive
