#!/bin/bash
# boots: 3
# seconds: 320
# The host goes down: units stop in the reverse of their order, within the budget, and what does not heed its signal is killed and
# named. It comes back with neither registry nor network: they start in order, what was stopped stays so, nothing counts as a
# crash, limits, address and port are as before. It goes down without a daemon: all are asked to end nevertheless. Once more with
# a clock that is a year behind, and then a year ahead: nothing waits.
. ./lib.sh

order=/var/lib/wherry/volumes/order/data/order
in_order() { # in_order LINE...: the last of each stands behind the last of the one before
	local at n=0 before=0 line want
	declare -A at
	while read -r line; do at[$line]=$((n += 1)); done <$order
	for want; do
		[ "${at[$want]:-0}" -gt "$before" ] || fail "'$want' does not stand where it should, after $before: $(cat $order)"
		before=${at[$want]}
	done
	echo "ok: in order: $*"
}
unit() { # unit NAME MORE: tells when it starts and when it is asked to end
	printf '%s\n' "image: $image" "volumes: [\"order:/order\"]" "stop_grace_period: 50s" \
		"command: [sh, -c, 'echo start $1 >>/order/order; trap \"echo stop $1 >>/order/order; exit 0\" TERM; while :; do sleep 1000 & wait; done']" \
		"$2" >"/etc/wherry/units/$1.yaml"
}
crash() { kill -9 "$(inst "$1" '{{.Pid}}')"; }
restarted() { [ "$(inst "$1" '{{.Restarts}} {{.State}}')" = "$2 running" ]; }
tries() { w inspect --format '{{with index .Instances 0}}{{.Restarts}}/{{.Attempt}}{{end}}' "$@" | xargs; }

case $VM_BOOT in
1)
	registry
	mkdir -p /etc/wherry/units
	echo 'shutdown: {budget: 60s}' >/etc/wherry/wherry.yaml
	# A budget that is longer than systemd's limit for the stop: more time is asked for.
	mkdir -p /etc/systemd/system/wherry-shutdown.service.d
	printf '[Service]\nTimeoutStopSec=20s\n' >/etc/systemd/system/wherry-shutdown.service.d/test.conf
	unit a 'ports: ["8080:80"]'
	unit b 'depends_on: [a]'
	unit c "depends_on: [b]
pre_stop: [{command: [sh, -c, 'echo drain c >>/order/order']}]"
	unit off ''
	unit deaf ''
	sed -i 's/^command:.*/command: [sh, -c, "trap : TERM; while :; do sleep 1000; done"]/; s/50s/1h/' /etc/wherry/units/deaf.yaml
	install_wherry
	until_true running a b c off deaf
	w stop off >/dev/null
	w update a --memory 40MiB >/dev/null
	read -r pid address <<<"$(inst a '{{.Pid}} {{.Address}}')"
	echo "$address" >/var/lib/wherry/address
	# Nothing but the host's end makes this one do anything.
	is "started with the daemon" "$(systemctl is-active wherry-shutdown)" active
	systemctl restart wherry
	systemctl restart wherry-shutdown
	until_true serves
	is "pid after restarts of both services" "$(inst a '{{.Pid}}')" "$pid"
	vm-reboot
	;;
2)
	until_true running a b c
	in_order 'drain c' 'stop c' 'stop b' 'stop a' 'start a' 'start b' 'start c'
	is "stopped by hand, before the boot" "$(inst off '{{.State}}')" stopped
	until_true running deaf
	is "restarts" "$(tries a b c deaf)" "0/0 0/0 0/0 0/0"
	w events --format '{{.Unit}} {{.Type}} {{.Message}}' >events.txt
	last() { grep "^$1" events.txt | tail -n 1; }
	like "how a ended" "$(last 'a exit')" "host shutdown"
	like "how deaf ended" "$(last 'deaf exit')" "host shutdown: it did not end in its time, and was killed"
	like "how it went" "$(last ' shutdown')" "4 units stopped; not in time, and killed: deaf.1"
	is "limit" "$(cat "$(group a)/memory.max")" $((40 << 20))
	is "address" "$(inst a '{{.Address}}')" "$(cat /var/lib/wherry/address)"
	like "port" "$(w status a | grep ^network)" "0.0.0.0:8080->80/tcp"
	pid=$(inst a '{{.Pid}}') deaf=$(inst deaf '{{.Pid}}')
	# The next time the host goes down without a daemon.
	systemctl disable wherry.service wherry.socket 2>/dev/null
	systemctl stop wherry.socket wherry.service
	[ -e "/proc/$pid" ] || fail "a ended with the daemon"
	is "without a daemon" "$(systemctl is-active wherry-shutdown)" active
	echo "no daemon" >>$order
	kill -9 "$deaf" # it would take the minute that all have without a daemon
	vm-reboot
	;;
3)
	in_order 'start c' 'no daemon' 'stop a'
	in_order 'no daemon' 'stop b'
	in_order 'no daemon' 'stop c'
	date -s "1 year ago" >/dev/null
	systemctl start wherry
	until_true running a b c
	is "a year behind: only the end that no daemon has seen counts" "$(tries a)" 1/1
	crash a
	until_true restarted a 2
	date -s "2 years" >/dev/null
	crash a
	until_true restarted a 3
	date -s "1 year ago" >/dev/null
	crash a
	until_true restarted a 4
	w events --format '{{.Type}}' >events.txt
	grep -qx exit events.txt || fail "no event of an end"
	is "given up" "$(grep -cx give_up events.txt || true)" 0
	like "calls off what is not" "$(w shutdown --cancel 2>&1 || true)" "no shutdown of the host is under way"
	out=$(w shutdown --budget 40s 2>&1)
	is "units, and what was killed" "$(echo "$out" | sort | xargs)" "a b c deaf deaf.1 did not end in its time, and was killed"
	like "a start" "$(w start a 2>&1 || true)" "the host is shutting down"
	w shutdown --cancel
	until_true running a b c deaf
	is "still stopped" "$(inst off '{{.State}}')" stopped
	;;
esac
