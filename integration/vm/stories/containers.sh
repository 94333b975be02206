#!/bin/bash
# seconds: 90
# Containers on a host as they are today: systemd as PID 1, cgroup v2 alone, AppArmor. The keeper is a service of its own
# whose descriptors systemd keeps, the groups stand below a third one that sleeps. User namespaces on both forms of layers,
# several containers in a run, true ends, terminals, hooks, and nothing altered in how the host shares out controllers.
# shellcheck disable=SC2154 # image is lib.sh's
. ./lib.sh

mkdir -p /usr/lib/wherry /etc/wherry/units
install -m 755 wherry /usr/bin/wherry
install -m 755 wherry-keeper /usr/lib/wherry/wherry-keeper
cat >/run/systemd/system/wherry-cargo.service <<'U'
[Service]
Delegate=yes
ExecStart=/bin/sh -c 'g=/sys/fs/cgroup$(cut -c4- /proc/self/cgroup); mkdir -p $g/keep; echo $$ >$g/keep/cgroup.procs; exec sleep infinity'
U
cat >/run/systemd/system/wherry-keeper.service <<'U'
[Service]
ExecStart=/usr/lib/wherry/wherry-keeper --cgroup-parent system.slice/wherry-cargo.service/units
KillMode=process
KillSignal=SIGKILL
Restart=always
RestartSec=100ms
FileDescriptorStoreMax=4096
OOMScoreAdjust=-900
U
cat >/run/systemd/system/wherry.service <<'U'
[Service]
Type=notify
ExecStart=/usr/bin/wherry daemon --cgroup-parent system.slice/wherry-cargo.service/units
KillMode=process
Restart=always
RestartSec=100ms
U
systemctl daemon-reload
systemctl start wherry-cargo
until_true test -d /sys/fs/cgroup/system.slice/wherry-cargo.service/keep
shares() { find /sys/fs/cgroup -ignore_readdir_race -name cgroup.subtree_control -not -path '*/wherry-cargo.service/*' -exec grep -H '' {} + | grep -v 'wherry\(-keeper\)\?.service/' | sort; }
shares >before
systemctl start wherry-keeper
until_true test -S /run/wherry/keeper.sock
systemctl start wherry
registry

echo "== user namespaces"
cat >own.yaml <<U
image: $image
userns: required
hostname: own
volumes: ["data:/data"]
command: [sh, -c, "mkdir -p /data/of-app && chown app:app /data/of-app && touch /data/of-root; exec sleep 10000"]
stop_grace_period: 1s
U
w apply --timeout 5m own.yaml
pid=$(inst own '{{.Pid}}')
[ "$(awk '{print $2}' "/proc/$pid/uid_map")" -gt 65535 ] || fail "no range of ids: $(cat "/proc/$pid/uid_map")"
echo "ok: ids $(tr -s ' ' <"/proc/$pid/uid_map"), $(inst own '{{.UserNS}}')"
owners() { w exec own stat -c '%u %n' /home/app/own /etc/of-root /bin/busybox /data/of-app /data/of-root | tr '\n' ' '; }
theirs="1000 /home/app/own 0 /etc/of-root 0 /bin/busybox 1000 /data/of-app 0 /data/of-root "
is "owners inside" "$(owners)" "$theirs"
is "the owner of a private file reads it" "$(w exec -u app own cat /home/app/own)" "of app"
w exec -u app own cat /etc/of-root 2>/dev/null && fail "app reads root's file"
is "what root makes is root's" "$(w exec own sh -c 'touch /etc/new; stat -c %u /etc/new')" 0
is "low ports" "$(w exec own sh -c 'nc -l -p 80 & sleep 1; kill $! && echo free')" free
is "ping of oneself" "$(w exec own ping -c 1 -w 30 127.0.0.1 | grep -c ' 0% packet loss')" 1
volume=$(find /var/lib/wherry/volumes -name of-app)
is "owners on the host" "$(stat -c %u "$volume")" 1000
w rm -f own
sed -i 's/required/host/' own.yaml
w apply own.yaml
is "owners without a user namespace" "$(owners)" "$theirs"
is "no user namespace" "$(readlink "/proc/$(inst own '{{.Pid}}')/ns/user")" "$(readlink /proc/self/ns/user)"
sed -i 's/: host/: required/; s/hostname: own/hostname: again/' own.yaml
w apply own.yaml
is "owners with one again" "$(owners)" "$theirs"
w rm -f own

echo "== several containers in a run"
cat >shop.yaml <<U
pid: shared
userns: required
ports: ["8080:8080"]
containers:
  php:
    image: $image
    command: [sh, -c, "mkdir -p /www && echo page >/www/index.html; exec httpd -f -p 127.0.0.1:9000 -h /www"]
    stop_grace_period: 1s
  nginx:
    image: $image
    depends_on: [php]
    stop_grace_period: 1s
    command: [sh, -c, "echo ready; while :; do wget -q -O /page 127.0.0.1:9000/index.html; { printf 'HTTP/1.0 200 OK\r\n\r\n'; cat /page; } | nc -l -p 8080; done"]
  side:
    image: $image
    essential: false
    stop_grace_period: 1s
    command: [sh, -c, "echo begun; exec sleep 10000"]
U
w apply --timeout 5m shop.yaml
page() { [ "$(curl -fsS --max-time 30 http://127.0.0.1:8080/)" = page ]; }
until_true page
php=$(cont shop php '{{.Pid}}') side=$(cont shop side '{{.Pid}}')
for ns in user net ipc uts pid; do is "one $ns namespace" "$(readlink "/proc/$php/ns/$ns")" "$(readlink "/proc/$side/ns/$ns")"; done
[ "$(readlink "/proc/$php/ns/mnt")" != "$(readlink "/proc/$side/ns/mnt")" ] || fail "one mount namespace"
# The holder, who is the PID namespace's first, has no group of a container.
kill -9 "$side"
back() { p=$(cont shop side '{{.Pid}}'); [ "$p" -gt 0 ] && [ "$p" != "$side" ]; }
until_true back
is "php was not disturbed" "$(cont shop php '{{.Pid}}')" "$php"
until_true sh -c "wherry ctl logs shop | grep -c begun | grep -qx 2"
like "logs of several" "$(w logs shop | sort | uniq -c | tr -s ' \n' ' ')" "1 shop.1/nginx | ready"

echo "== lack of memory"
for oom in group process; do
	cat >oom.yaml <<U
image: $image
restart: no
network: none
oom: $oom
command: [sh, -c, "tail /dev/zero; echo survived; exit 7"]
resources: {limits: {memory: 16MiB}}
U
	w apply --no-wait oom.yaml
	ended() { exit=$(inst oom '{{with .Exit}}{{.Code}} {{.Signal}} {{.OOM}}{{end}}') && [ -n "$exit" ]; }
	until_true ended
	out=$(w logs --no-prefix oom)
	case $oom in
	group) is "the end by lack of memory, group" "$exit" "0 SIGKILL true"; is "its output" "$out" "" ;;
	process) is "the end by lack of memory, process" "$exit" "7  false"; is "its output" "$out" survived
		like "events" "$(w events oom)" oom ;;
	esac
	w rm -f oom
done
w run --rm --network none $image sh -c 'exit 137' && fail "exit 137" || is "exit 137" $? 137

echo "== hands: exec, cp, pause, update, hooks"
disk=$(lsblk -dno NAME -e 7,11 | head -1)
cat >box.yaml <<U
image: $image
userns: host
cap_add: [SYSLOG]
devices: [/dev/kmsg, "/dev/$disk:/dev/disk:r"]
volumes: ["/tmp/stopped:/stopped"]
tty: true
stdin_open: true
command: [sh]
pre_stop: [{command: [sh, -c, "date >/stopped/drained"]}]
stop_grace_period: 1s
resources: {limits: {memory: 64MiB, pids: 64}}
U
mkdir -p /tmp/stopped
w apply --timeout 5m box.yaml
pid=$(inst box '{{.Pid}}')
cg=/sys/fs/cgroup$(inst box '{{.Cgroup}}')
like "its group" "$cg" /wherry-cargo.service/units/
is "exec -it is a terminal of our size" "$(script -qec 'stty rows 31 cols 99; wherry ctl exec -it box sh -c "tty; stty size; exit 5"' /dev/null | tr -d '\r' | tr '\n' ' ' | grep -ao '/dev/.*')" "/dev/pts/1 31 99 "
code=0; script -qec 'wherry ctl exec -it box sh -c "exit 5"' /dev/null >/dev/null || code=$?
is "its exit" "$code" 5
is "input by a pipe" "$(seq 1000 | w exec -i box wc -l)" 1000
is "a run that reads a pipe" "$(tar c -C /etc hostname | w run --rm -i --network none $image tar t)" hostname
mkdir -p tree/of && echo here >tree/of/file
w cp tree box:/root/
w cp box:/root/tree/of/file back
is "cp there and back" "$(cat back)" here
w pause box
is "frozen" "$(grep frozen "$cg/cgroup.events")" "frozen 1"
w resume box
is "thawed" "$(grep frozen "$cg/cgroup.events")" "frozen 0"
w update box --memory 80m
is "memory.max after update" "$(cat "$cg/memory.max")" 83886080

shares >after
diff before after || fail "the sharing of controllers outside our subtree has changed"
echo "ok: no cgroup.subtree_control outside ours has changed"
