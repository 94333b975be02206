#!/bin/bash
# boots: 4
# The power goes three times at some moment of a pull, or shortly after. Whenever the machine is back, every image is whole or
# absent, nothing is left of what was half done, and the next pull works.
set -euo pipefail
fail() { echo "FAIL: $*" >&2; journalctl -b -u wherry --no-pager -n 40 >&2 || true; exit 1; }
until_true() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; fail "never true: $*"; }
root=/var/lib/wherry

mkdir -p /usr/lib/wherry /etc/wherry
install -m 755 wherry /usr/bin/wherry
install -m 755 wherry-keeper /usr/lib/wherry/wherry-keeper
sync # the programs are not the ones that are tested
cat >/run/systemd/system/wherry.service <<'U'
[Service]
Type=notify
ExecStart=/usr/bin/wherry daemon
KillMode=process
Delegate=yes
U
systemctl daemon-reload
systemctl start wherry || fail "the daemon does not start in boot $VM_BOOT"
./demo registry 127.0.0.1:5000 >/tmp/registry.out &
until_true test -s /tmp/registry.out

# What the last power cut has left.
wherry ctl image verify || fail "damaged after power cut $((VM_BOOT - 1))"
left=$(find $root -path '*/layers/tmp/*' -o -path '*/blobs/tmp/*' | head)
[ -z "$left" ] || fail "left: $left"
journalctl -b -u wherry --no-pager -o cat | grep -E 'power cut|damaged|dropped' || echo "ok: the daemon has nothing to say"
echo "ok: boot $VM_BOOT: $(wherry ctl image list -q | wc -l) images, whole"

if [ "$VM_BOOT" -lt 4 ]; then
	wherry ctl image rm 127.0.0.1:5000/web:latest >/dev/null 2>&1 || true
	wherry ctl image pull --policy always 127.0.0.1:5000/web:latest >/tmp/pull.out 2>&1 &
	sleep "$((RANDOM % 8)).$((RANDOM % 900 + 100))"
	echo "power cut $VM_BOOT: pull $(jobs -r %2 >/dev/null 2>&1 && echo runs || echo is done), $(ls $root/*/blobs/sha256 $root/blobs/sha256 2>/dev/null | wc -l) blobs"
	vm-crash
fi
wherry ctl image pull --policy always 127.0.0.1:5000/web:latest
wherry ctl image verify
echo "ok: pulled"
