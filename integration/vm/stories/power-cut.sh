#!/bin/bash
# boots: 3
# seconds: 200
# The power goes twice: while an image is pulled and units are applied, then while a container writes its log and the state
# changes. Whenever the machine is back, without anybody's help and without a registry, every image, layer and revision is whole
# or absent; what was answered holds, units come back in their last intent; nothing is left of what was half done; logs have no
# garbage; and events go on where they were.
# shellcheck disable=SC2154 # image is lib.sh's
. ./lib.sh
root=/var/lib/wherry
promise() { echo "$*" >>promised; sync promised; } # what was answered; on this disk as surely as the answer on its own
steady() { # steady N: its revision number N
	cat >steady.yaml <<U
image: $image
network: none
stop_grace_period: 1s
labels: {number: "$1"}
logging: {max_size: 256KiB, max_file: 4}
command: [sh, -c, "n=0; while :; do n=\$((n+1)); echo line \$n; [ \$((n % 100)) != 0 ] || usleep 200000; done"]
U
}
small() { printf '%s\n' "image: $image" "network: none" "stop_grace_period: 1s" "command: [sleep, '10000']" >"$1.yaml"; }
last() { grep "^$1 " promised | tail -n1 | cut -d' ' -f2; }
files() { find "$@" -type f ! -name lock ! -name '.*' 2>/dev/null | wc -l; }

# What the power cut has left.
whole() {
	until_true serves
	[ -z "$(pgrep demo)" ] || fail "a registry runs already"
	local up u
	up=$(sed -n 's/^applied //p' promised | grep -vx "$(last stopped)" || true)
	# shellcheck disable=SC2086 # several
	until_true running steady $up
	w list --format '{{.Name}} {{.Intent}} {{.Running}} {{.Revision}}' >units
	for u in $(last stopped) quiet; do is "$u is not started" "$(grep "^$u " units | cut -d' ' -f1-3)" "$u stopped 0"; done
	[ "$(sed -n 's/^steady .* //p' units)" -ge "$(last revision)" ] || fail "an applied revision is gone: $(cat units)"
	w image verify || fail "damaged"
	is "left over" "$(find $root -path '*/layers/tmp/*' -o -path '*/blobs/tmp/*' | head)" ""
	# Each run has one lease of layers, one of ids, one folder; units that were never answered may or may not be there.
	local n
	settled() { n=$(w list --format '{{.Running}}' | grep -c '^1'); [ "$(files $root/images/leases)" = "$n" ] && [ "$(files /run/wherry/userns)" = "$n" ] &&
		[ "$(find $root/runs -mindepth 1 -maxdepth 1 -type d ! -name '.*' | wc -l)" = "$n" ]; }
	until_true settled
	echo "ok: $n runs, and as many leases of layers and ids and folders"
	# Lines of each run count from 1 without a gap.
	w logs --no-prefix steady >lines 2>/dev/null
	[ "$(grep -c '^line' lines)" -ge 50 ] || fail "hardly any lines: $(head lines)"
	is "lines out of order" "$(awk '/^wherry: /{next} !/^line [0-9]+$/{print "garbage: " $0; next} was && $2!=1 && $2!=was+1{print was, $0} {was=$2}' lines | head -n3)" ""
	[ -n "$(find $root/logs/steady -type f -size +10k)" ] || fail "no logs: $(ls -R $root/logs)"
	is "files with garbage" "$(find $root/logs/steady -type f -exec grep -lP '\x00' {} + | wc -l)" 0
	w events --format json >events.json
	is "events out of order" "$(grep -o '"seq": *[0-9]*' events.json | grep -o '[0-9]*$' | awk '$1<=was{print was, $1} {was=$1}')" ""
	[ "$(grep -o '"seq": *[0-9]*' events.json | grep -o '[0-9]*$' | tail -n1)" -gt "$(last events)" ] || fail "the events' numbers began anew"
}

case $VM_BOOT in
1)
	: >promised
	install_wherry
	registry
	curl -fsS http://127.0.0.1:5000/v2/web/manifests/latest >/dev/null & # it is made when it is first asked for
	small quiet; steady 1
	w apply --timeout 5m quiet.yaml steady.yaml
	wait $!
	sync # the programs and the image are not what is tested
	w stop quiet
	promise revision 1
	promise events "$(w events --format json | tail -n1 | grep -o '"seq": *[0-9]*' | grep -o '[0-9]*$')"
	w image pull 127.0.0.1:5000/web:latest >/dev/null 2>&1 &
	for i in 1 2 3 4; do
		small "u$i"
		{ w apply --no-wait "u$i.yaml" >/dev/null && promise applied "u$i"; } &
	done
	until_true grep -q applied promised
	sleep "0.$((RANDOM % 900 + 100))"
	;;
2)
	whole
	registry
	u=$(sed -n 's/^applied \(.*\)/\1/p' promised | head -n1)
	w stop "$u" && promise stopped "$u"
	promise events "$(w events --format json | tail -n1 | grep -o '"seq": *[0-9]*' | grep -o '[0-9]*$')"
	(for n in $(seq 2 50); do steady "$n"; w apply --no-wait steady.yaml >/dev/null && promise revision "$n"; done) &
	until_true grep -q 'revision [3-9]' promised
	sleep "0.$((RANDOM % 900 + 100))"
	;;
3)
	whole
	registry
	w image pull --policy always 127.0.0.1:5000/web:latest
	w image verify
	w start "$(last stopped)"
	until_true running "$(last stopped)"
	echo "ok: pulled and started"
	exit
	;;
esac
echo "power cut $VM_BOOT: promised: $(xargs <promised)"
vm-crash
