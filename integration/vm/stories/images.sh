#!/bin/bash
# seconds: 60
# The image store on a kernel and a file system that have more than the build machine's: layers are EROFS images that are
# mounted from their files (by a loop device before Linux 6.12), a writable layer is bounded by a project quota of ext4,
# and when container and image are gone, so is everything that they took.
. ./lib.sh

proven ./quota.test 'Limit|Inherited'

mkdir -p /usr/lib/wherry /etc/wherry /var/lib/wherry
install -m 755 wherry /usr/bin/wherry
install -m 755 wherry-keeper /usr/lib/wherry/wherry-keeper
truncate -s 300M /payload/store.img
mkfs.ext4 -q -O quota,project /payload/store.img
mount -o loop,prjquota /payload/store.img /var/lib/wherry
cat >/run/systemd/system/wherry.service <<'U'
[Service]
Type=notify
ExecStart=/usr/bin/wherry daemon
KillMode=process
Delegate=yes
U
# Before 6.12 the store would choose folders by itself.
echo "layers: erofs" >/etc/wherry/wherry.yaml
systemctl daemon-reload
systemctl start wherry
./demo registry 127.0.0.1:5000 >/tmp/registry.out &
until_true test -s /tmp/registry.out
loops() { losetup -n -O BACK-FILE | grep -c layer.erofs || true; }

cat >box.yaml <<'U'
image: 127.0.0.1:5000/web:latest
ports: ["8080:8080"]
user: "0"
storage_opt: {size: 8MiB}
U
wherry ctl apply --timeout 5m box.yaml
until_true curl -fsS http://127.0.0.1:8080/
[ -n "$(find /var/lib/wherry/layers -name layer.erofs)" ] || fail "no layer is an EROFS image"
is "mounts of layers on the host" "$(grep -c erofs /proc/mounts || true)" 0
wherry ctl image verify || fail "verify"
upper=$(find /var/lib/wherry/runs -name upper)
project=$(lsattr -pd "$upper" | awk '{print $1}')
[ "$project" -gt 0 ] || fail "the writable layer has no project"
wherry ctl exec box /web fill /filled 16 && fail "16 MiB fitted into 8"
used=$(du -sk "$upper" | cut -f1)
[ "$used" -le 8192 ] && [ "$used" -ge 4096 ] || fail "the writable layer has $used KiB"
echo "ok: stopped at $used KiB"

keeper=$(wherry ctl status --format json | tr -d ' \n' | grep -o '"keeper_pid":[0-9]*' | cut -d: -f2)
kill -9 "$keeper"
until_true wherry ctl exec box /web true
wherry ctl restart box
until_true curl -fsS http://127.0.0.1:8080/

wherry ctl image save -o /payload/web.tar 127.0.0.1:5000/web:latest
wherry ctl rm -f box
wherry ctl image rm -f 127.0.0.1:5000/web:latest
none() { [ -z "$(find /var/lib/wherry/layers -name layer.erofs)" ]; }
until_true none
no_loops() { [ "$(loops)" = 0 ]; }
until_true no_loops
wherry ctl image load -i /payload/web.tar
wherry ctl run --rm --pull never --entrypoint /web 127.0.0.1:5000/web:latest true
systemctl stop wherry
until_true umount /var/lib/wherry # the keeper ends in its own time
