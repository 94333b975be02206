#!/bin/bash
# seconds: 50
# On a file system with fs-verity the images of layers and the blobs are sealed: nobody can write them, what the disk
# has spoiled cannot be read, verify names the file in the layer, and a repair makes it right and sealed again.
. ./lib.sh

mkdir -p /usr/lib/wherry /etc/wherry /var/lib/wherry
install -m 755 wherry /usr/bin/wherry
install -m 755 wherry-keeper /usr/lib/wherry/wherry-keeper
truncate -s 300M /payload/verity.img
mkfs.ext4 -q -b 4096 -O verity /payload/verity.img
mount -o loop /payload/verity.img /var/lib/wherry
echo "layers: erofs" >/etc/wherry/wherry.yaml
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
wherry ctl image pull 127.0.0.1:5000/web:latest

layer() { find /var/lib/wherry -name layer.erofs -path '*/layers/*' ! -path '*/trash/*' | head -1; }
sealed() { lsattr "$(layer)" | cut -d' ' -f1 | grep -q V; }
until_true sealed
noted() { find /var/lib/wherry -name verity.json -exec grep -q "$(basename "$(dirname "$(layer)")")" {} +; }
until_true noted
(echo x >>"$(layer)") 2>/dev/null && fail "a sealed file could be written"
echo "ok: sealed: $(lsattr "$(layer)" | cut -d' ' -f1), $(find /var/lib/wherry -path '*/blobs/sha256/*' -exec lsattr {} + | grep -c '^[a-z-]*V') blobs"
wherry ctl image verify

# The disk spoils a block in the middle.
old=$(layer)
size=$(stat -c %s "$old")
sync
block=$(filefrag -v -b4096 "$old" | awk -v want=$((size / 8192)) '$1 ~ /^[0-9]+:$/ {gsub(/[.:]/, " "); if (want >= $2 && want <= $3) print $4 + want - $2}')
[ -n "$block" ] || fail "where is the file? $(filefrag -v "$old")"
printf spoiled | dd of=/payload/verity.img bs=4096 seek="$block" conv=notrunc status=none
sync
echo 3 >/proc/sys/vm/drop_caches
cat "$old" >/dev/null 2>&1 && fail "what the disk has spoiled could be read"
st=0
wherry ctl image verify | tee /tmp/verify.out || st=$?
[ "$st" = 1 ] || fail "verify: exit $st"
grep -q input/output /tmp/verify.out || fail "the damage is not named"
wherry ctl image verify --repair || fail "repair: exit $?"
wherry ctl image verify
until_true sealed
echo "ok: repaired and sealed again"
systemctl stop wherry
until_true umount /var/lib/wherry # the keeper ends in its own time
