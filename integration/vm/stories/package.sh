#!/bin/bash
# seconds: 160
# The package: two commands lead from nothing to a unit that runs within its limits. Upgrade and downgrade leave
# containers as they are, while keeper and daemon become other builds; a removal leaves nothing running
# and a purge nothing at all; policy-rc.d is respected.
# needs: packages
. ./lib.sh
export DEBIAN_FRONTEND=noninteractive
v1=./packages/1/wherry_1.0.0-1_amd64.deb v2=./packages/2/wherry_1.1.0-1_amd64.deb
get() { dpkg --force-unsafe-io -i "$@" >/tmp/dpkg.out 2>&1 || { cat /tmp/dpkg.out; fail "dpkg -i $*"; }; } # as apt does it, which is slow here
registry
cat >count.yaml <<U
image: $image
command: [sh, -c, 'i=0; while :; do i=\$((i+1)); echo n \$i; sleep 0.5; done']
ports: ["8080:80"]
resources: {limits: {memory: 48MiB, cpus: 0.4, pids: 20}}
U

echo "== two commands"
get $v1
wherry ctl apply count.yaml
w status
pid=$(inst count '{{.Pid}}') cg=$(group count)
keeper=$(systemctl show -p MainPID --value wherry-keeper)
cargo=$(systemctl show -p MainPID --value wherry-cargo)
for unit in wherry.service wherry.socket; do is "$unit is enabled" "$(systemctl is-enabled $unit)" enabled; done
getent group wherry >/dev/null || fail "no group wherry"
echo "#mine" >>/etc/wherry/wherry.yaml

log=$(find /var/lib/wherry/logs/count -name '*.log')
size() { stat -Lc %s "$log"; }
same() {
	is "pid after $1" "$(inst count '{{.Pid}}')" "$pid"
	[ -d "/proc/$pid" ] || fail "the container has ended"
	is "limits after $1" "$(cat "$cg"/{memory.max,cpu.max,pids.max} | tr '\n' ' ')" "50331648 40000 100000 20 "
	is "the keeper after $1" "$(systemctl show -p MainPID --value wherry-keeper)" "$keeper"
	is "cargo after $1" "$(systemctl show -p MainPID --value wherry-cargo)" "$cargo"
	renewed() { cmp -s "/proc/$keeper/exe" /usr/lib/wherry/wherry-keeper; }
	until_true renewed
	daemon=$(systemctl show -p MainPID --value wherry)
	cmp "/proc/$daemon/exe" /usr/bin/wherry || fail "the daemon is the old build"
	[[ $(w status 2>&1) != *"not upgraded"* ]] || fail "status: $(w status 2>&1)"
	now=$(size)
	more() { [ "$(size)" -gt "$now" ]; }
	until_true more
}
same installation
first=$(sha256sum <"/proc/$keeper/exe")

echo "== upgrade, downgrade"
get $v2
same upgrade
[ "$(sha256sum <"/proc/$keeper/exe")" != "$first" ] || fail "the keeper is the first one"
get $v1
same downgrade
is "the keeper's build after the downgrade" "$(sha256sum <"/proc/$keeper/exe")" "$first"
# Every number is there, in order; at a keeper's end a piece may repeat.
w logs count | awk '$1 != "n" || $2 > want + 1 {print "line " NR ": " $0; exit 1} $2 > want {want = $2} END {print "counted to " want}' || fail "the log has a gap"
is "the operator's configuration" "$(tail -n 1 /etc/wherry/wherry.yaml)" "#mine"

nothing_runs() {
	for p in $pid $keeper $cargo; do [ ! -e "/proc/$p" ] || fail "$1: process $p is left: $(tr '\0' ' ' <"/proc/$p/cmdline")"; done
	is "$1: processes" "$(pgrep -c -x 'wherry.*' || true)" 0
	is "$1: groups" "$(find /sys/fs/cgroup/wherry.slice -name '*count*' 2>/dev/null)" ""
	[ ! -e /sys/fs/cgroup/wherry.slice/wherry-cargo.service ] || fail "$1: the group of cargo is left"
	is "$1: links" "$(ip -o link | grep -E 'wherry0|veth' || true)" ""
	is "$1: tables" "$(nft list tables)" ""
	is "$1: mounts" "$(grep wherry /proc/self/mounts || true)" ""
	is "$1: failed" "$(systemctl --failed --plain --no-legend | grep wherry || true)" ""
}
echo "== removal"
dpkg -r wherry
nothing_runs removal
[ ! -e /usr/bin/wherry ] && [ ! -e /usr/lib/wherry ] || fail "programs are left"
[ -s /etc/wherry/wherry.yaml ] && [ -s /var/lib/wherry/state.db ] || fail "configuration or data are gone"

echo "== purge"
dpkg -P wherry
nothing_runs purge
is "files after purge" "$(find / -xdev -path /payload -prune -o -path /tmp -prune -o -path /var/log -prune -o -path /var/cache -prune -o -name '*wherry*' -print)" ""
is "the group after purge" "$(getent group wherry || true)" ""

echo "== policy-rc.d"
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
get $v1
systemctl is-active -q wherry && fail "started against policy-rc.d"
is "enabled all the same" "$(systemctl is-enabled wherry)" enabled
echo "the package is a good guest"
