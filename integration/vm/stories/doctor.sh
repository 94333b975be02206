#!/bin/bash
# seconds: 60
# After an install the doctor finds nothing that fails; then one thing after another is broken, and each is named
# with its remedy, which helps: forwarding, another firewall, a full disk, the clock, the keeper's build, a unit
# file. As root, as a member of group wherry, without a daemon; as JSON; exit codes.
# shellcheck source=integration/vm/lib.sh
. ./lib.sh

# doctor WANT [FLAG...]: its exit code; what it says stands in $said.
doctor() {
	local want=$1 code=0
	shift
	said=$(wherry ctl doctor --timeout 1m "$@" 2>/tmp/doctor.err) || code=$?
	[ "$code" = "$want" ] || fail "exit code $code, want $want: $said $(cat /tmp/doctor.err)"
}
line() { grep -A1 -E "^(ok|warn|fail|skip) +$1 " <<<"$said" | grep -E "^([a-z]+ +$1|  )" || true; } # with its remedy
named() { like "$1" "$(line "$1")" "$2"; }

echo "== before an install"
chmod +x wherry
./wherry ctl doctor --timeout 1m --config /dev/null --format json >/tmp/before.json 2>/dev/null || fail "before: $(cat /tmp/before.json)"
like "before" "$(tr -d ' \n' </tmp/before.json)" '"name":"systemd","verdict":"warn","detail":"theservicesarenotinstalled'

echo "== installed"
mkdir -p /etc/wherry/units
install_wherry
doctor 0
echo "$said"
for area in keeper systemd kernel.version cgroup.mode cgroup.delegation cgroup.controllers fs.root fs.overlay fs.idmap userns disk.space net.kernel net.firewall clock.time; do
	named "$area" "ok    $area"
done
named cgroup.delegation wherry.slice/wherry-cargo.service
counted() { cat /proc/self/mountinfo /proc/net/dev | wc -l; nft list ruleset 2>/dev/null | wc -l; find /sys/fs/cgroup -ignore_readdir_race -type d | wc -l; }
for _ in 1 2 3; do # a service of the host's may come or go meanwhile
	before=$(counted)
	doctor 0 --local
	after=$(counted)
	[ "$after" != "$before" ] || break
done
is "mounts, devices, tables and groups" "$after" "$before"
is "nothing is left below the root" "$(find /var/lib/wherry -maxdepth 1 -name '.probe*' | wc -l)" 0
useradd -M -G wherry clerk
is "a member of the group sees what root sees" "$(setpriv --reuid clerk --regid clerk --init-groups wherry ctl doctor --timeout 1m --format '{{.Name}} {{.Verdict}}' | grep fs.overlay)" "fs.overlay ok"

echo "== forwarding is off, and a policy says so"
echo 'net.ipv4.ip_forward = 0' >/etc/sysctl.d/99-hardened.conf
doctor 0 -q
named net.forwarding "/etc/sysctl.d/99-hardened.conf:1"
ip link add wherry0 type bridge 2>/dev/null || true
sysctl -qw net.ipv4.ip_forward=0
doctor 1 -q
named net.forwarding "fail  net.forwarding"
remedy=$(wherry ctl doctor --timeout 1m -q --format '{{if eq .Name "net.forwarding"}}{{.Remedy}}{{end}}' | grep . || true)
like "its remedy" "$remedy" "sysctl -w"
bash -c "$remedy" >/dev/null
ip link del wherry0
is "the remedy helps, now" "$(cat /proc/sys/net/ipv4/ip_forward)" 1
is "and at the next boot" "$(cat /etc/sysctl.d/99-hardened.conf)" "net.ipv4.ip_forward = 1"

echo "== another firewall drops what is forwarded"
nft add table inet guard
nft 'add chain inet guard forward { type filter hook forward priority 0; policy drop; }'
doctor 1 -q
named net.firewall "table inet guard, chain forward"
named net.firewall "nft insert rule inet guard forward iifname wherry0 accept"
bash -c "$(grep -o 'nft insert[^;]*' <<<"$(line net.firewall)")"
doctor 0 -q
is "its remedy helps" "$(line net.firewall)" ""
nft delete table inet guard

echo "== the clock is set back"
now=$(date +%s)
date -qs "@$((now - 31536000))" >/dev/null 2>&1 || date -s "@$((now - 31536000))" >/dev/null
doctor 1 -q
named clock.time "certificates seem not valid yet"
date -s "@$now" >/dev/null

echo "== the keeper's program is another build"
cp /usr/lib/wherry/wherry-keeper /tmp/keeper
printf x >>/tmp/keeper && mv /tmp/keeper /usr/lib/wherry/wherry-keeper
doctor 0 -q
named keeper "another build"
named keeper "systemctl restart wherry.service"

echo "== files"
echo 'imag: x' >/etc/wherry/units/bad.yaml
doctor 1 -q
named files.units "/etc/wherry/units/bad.yaml:1:1"
rm /etc/wherry/units/bad.yaml

echo "== no daemon, a small full disk"
systemctl stop wherry.socket wherry.service
mkdir -p /mnt/small
mount -t tmpfs -o size=8m small /mnt/small
head -c 8m /dev/zero >/mnt/small/fill 2>/dev/null || true
printf 'root: /mnt/small\n' >/tmp/small.yaml
doctor 1 --config /tmp/small.yaml -q
named disk.space "pulls leave"
named disk.space "wherry ctl image gc"
named fs.root "gone after a reboot"
named daemon "systemctl start wherry.service"
umount /mnt/small
wherry ctl doctor --timeout 1m --local --format json >/tmp/doctor.json 2>/dev/null || true
like "JSON" "$(tr -d ' \n' </tmp/doctor.json)" '{"checks":[{"name":"daemon","verdict":"warn"'
