#!/bin/bash
# seconds: 100
# The disk is full, has no inodes left, or turns read-only, and the run folder is full: whatever cannot be done says in clear
# words what it was, of which unit and container, and where there is no room; nothing is left half done; what runs goes on; and
# when there is room again everything heals by itself, without a restart of anything.
# shellcheck disable=SC2154 # image is lib.sh's
. ./lib.sh
mkdir -p /small /few /run/wherry /etc/wherry
truncate -s 96M small.img
truncate -s 200M few.img
mkfs.ext4 -q -m 0 small.img
mkfs.ext4 -q -m 0 -N 200 few.img
mount -o loop small.img /small
mount -o loop few.img /few
mount -t tmpfs -o size=4M,mode=711 tmpfs /run/wherry
echo "root: /small" >/etc/wherry/wherry.yaml
install_wherry
registry
pids() { echo "$(inst calm '{{.Pid}}')" "$(w status --format json | grep -o '"keeper_pid": *[0-9]*' | grep -o '[0-9]*$')" "$(systemctl show -P MainPID wherry)"; }
filled=0
fill() { for bs in 64k 1k; do dd if=/dev/zero of="$1/fill$((filled += 1))" bs=$bs status=none 2>/dev/null || true; done; }
free() { rm -f "$1"/fill*; }
out=/run/out # where nothing is full
no() { # no COMMAND...: it fails; what it says stands in $out
	if "$@" >$out 2>&1; then fail "it worked: $* $(cat $out)"; fi
}
runs() { find /small/runs -mindepth 1 -maxdepth 1 -type d ! -name '.*' | wc -l; }
leases() { find /small/images/leases /run/wherry/userns /run/wherry/network/leases -type f ! -name lock ! -name '.*' "$@"; }

cat >calm.yaml <<U
image: $image
command: [sh, -c, "trap 'yes tick 0 | head -n 20000' USR1; n=0; while sleep 0.5; do n=\$((n+1)); echo tick \$n; done"]
stop_grace_period: 1s
U
sed 's/image:/labels: {of: next}\nimage:/' calm.yaml >next.yaml
w apply --timeout 5m calm.yaml
was=$(pids) runs=$(runs)
is "leases of layers, ids and addresses" "$(leases -name '*calm*' | wc -l)" 3
same() { is "what ran goes on" "$(pids)" "$was"; }
gone() { is "runs" "$(runs)" "$runs"; }

echo "== full"
fill /small
no w apply --timeout 5m next.yaml
like "apply" "$(cat $out)" "no space left on device (/small is full)"
like "apply" "$(cat $out)" "next"
no w run --rm --name more --network none "$image" true
like "run" "$(cat $out)" "container more.1"
like "run" "$(cat $out)" "no space left on device (/small is full)"
like "status" "$(w status 2>&1)" "/small is full"
no w image pull 127.0.0.1:5000/web:latest
like "pull" "$(cat $out)" "no space left on /small"
# The container ends: there is no room for its next run.
told() {
	local pid
	fill /small # what the daemon has freed by itself
	pid=$(inst calm '{{.Pid}}')
	[ "$pid" -le 1 ] || kill -9 "$pid"
	[[ $(w status calm 2>&1) == *'is full'* ]]
}
until_true told
like "why it does not start again" "$(w status calm 2>&1)" "no space left on device (/small is full)"
# Its log has lost something, and says so when it can.
free /small
until_true running calm
until_true running next
w rm -f next
gone
is "leases of others" "$(leases ! -name '*calm*')" ""
is "status has nothing to say of it" "$(w status 2>&1 | grep -c 'is full' || true)" 0

echo "== full while it logs"
was=$(pids)
fill /small
w kill -s USR1 calm # more than what is left of the last block
dropping() { grep -q 'no space left' /run/wherry/keeper.log || journalctl -b -u wherry-keeper -o cat | grep 'no space left' >/dev/null; }
until_true dropping
same
free /small
marked() { [[ $(w logs --no-prefix calm 2>&1) == *'wherry: '*' dropped '*'no space left on device'* ]]; }
until_true marked
same
is "lines that are none" "$(w logs --no-prefix calm 2>&1 | grep -cv -e '^tick [0-9]*$' -e '^wherry: ' || true)" 0

echo "== the run folder is full"
fill /run/wherry
no w run --rm --name more --network none "$image" true
like "run" "$(cat $out)" "container more.1"
like "run" "$(cat $out)" "no space left on device (/run/wherry is full)"
like "status" "$(w status 2>&1)" "/run/wherry is full"
same
free /run/wherry
is "with room" "$(w run --rm --name more --network none "$image" echo works)" works
same

echo "== read-only"
events=$(w events --format json | tail -n1 | grep -o '"seq": *[0-9]*' | grep -o '[0-9]*$')
echo u >/proc/sysrq-trigger # as errors=remount-ro does after an error of the disk
readonly() { grep -q ' /small ext4 ro' /proc/mounts; }
until_true readonly
like "status" "$(w status 2>&1)" "/small is mounted read-only: what runs goes on"
no w run --rm --name more --network none "$image" true
like "run" "$(cat $out)" "read-only"
same
for m in / /payload /small /few; do mount -o remount,rw "$m" || true; done
only_calm() { [ "$(w list -q)" = calm ]; } # the end of what could not start is recorded now
until_true only_calm
is "healed" "$(w run --rm --name more --network none "$image" echo works)" works
same
next=$(w events --format json | tail -n1 | grep -o '"seq": *[0-9]*' | grep -o '[0-9]*$')
[ "$next" -gt "$events" ] || fail "events: $next after $events"
ticks() { [[ $(w logs --no-prefix --tail 1 calm) == tick* ]]; }
until_true ticks
w restart calm
w rm -f calm
released() { [ -z "$(leases)" ]; }
until_true released

echo "== no inodes"
printf '%s\n' "root: /few" "layers: folder" >/etc/wherry/wherry.yaml
systemctl restart wherry
until_true serves
no w image pull "$image"
like "pull" "$(cat $out)" "no inodes left on /few"
is "half done" "$(find /few -path '*/tmp/*' -o -path '*/layers/*/*' -type d | head)" ""
