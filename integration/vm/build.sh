#!/bin/bash
# Builds the test VM: a Debian root file system with systemd (ext4 image) and an
# uncompressed kernel that QEMU boots directly. Unattended; needs root.
#
#   VM_SUITE   trixie (default: kernel 6.12, systemd 257) or bookworm (6.1, 252)
#   VM_DIR     where the image goes (default: /var/cache/wherry-test/vm/$VM_SUITE)
#   VM_SIZE    size of the root disk, sparse (default 3G)
#   VM_PKGS    more packages, comma-separated
#   VM_WARM    0: do not boot it once to keep the booted state (see run.sh)
#   VM_MIRROR  package mirror (default: the one mmdebstrap knows for the suite)
#
# Does nothing when VM_DIR already holds an image built from the same inputs; -f rebuilds.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=${VM_SUITE:-trixie}
dir=${VM_DIR:-${WHERRY_TEST_CACHE:-/var/cache/wherry-test}/vm/$suite}
size=${VM_SIZE:-3G}
force=; [ "${1:-}" = -f ] && force=1

pkgs=systemd,systemd-sysv,dbus,udev,kmod,iproute2,nftables,busybox-static,curl
pkgs+=,procps,uidmap,e2fsprogs,xfsprogs,btrfs-progs,util-linux,apparmor${VM_PKGS:+,$VM_PKGS}

need=()
for c in mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs qemu-system-x86_64:qemu-system-x86 \
	qemu-img:qemu-utils zstd:zstd lz4:lz4 xz:xz-utils depmod:kmod strip:binutils; do
	command -v "${c%%:*}" >/dev/null || need+=("${c#*:}")
done
if [ ${#need[@]} -gt 0 ]; then
	[ "$(id -u)" = 0 ] || { echo "vm: missing packages: ${need[*]}" >&2; exit 1; }
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi

key=$(cat "$here/build.sh" "$here/run.sh" <(find "$here/guest" -type f | sort | xargs cat) <(echo "$suite $size $pkgs"; qemu-system-x86_64 --version 2>/dev/null) | sha256sum | cut -c1-32)
if [ -z "$force" ] && [ "$(cat "$dir/key" 2>/dev/null)" = "$key" ]; then
	echo "vm: $dir is up to date"; exit 0
fi

mkdir -p "$dir"
tmp=$(mktemp -d "${TMPDIR:-/tmp}/vmbuild.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
root=$tmp/root
start=$SECONDS

# The kernel's .deb is unpacked, not installed: that leaves out initramfs-tools and the
# making of a large initrd; below, this script makes one of busybox and one module.
cat >"$tmp/kernel-hook" <<'HOOK'
#!/bin/sh
set -eu
root=$1
img=$(chroot "$root" apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
chroot "$root" sh -c "cd /tmp && apt-get -q download $img"
mkdir "$root/tmp/k"
dpkg-deb -x "$root"/tmp/linux-image-*.deb "$root/tmp/k"
mods=$(find "$root/tmp/k" -path '*/lib/modules' -type d | head -n1)
mkdir -p "$root/usr/lib/modules"
cp -a "$mods/." "$root/usr/lib/modules/"
cp "$root"/tmp/k/boot/vmlinuz-* "$root"/tmp/k/boot/config-* "$root/boot/"
rm -rf "$root"/tmp/k "$root"/tmp/linux-image-*.deb
HOOK
chmod +x "$tmp/kernel-hook"

mmdebstrap --quiet --mode=root --variant=minbase --include="$pkgs" \
	--aptopt='APT::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/lib/x86_64-linux-gnu/gconv/*' \
	--customize-hook="$tmp/kernel-hook" \
	"$suite" "$root" ${VM_MIRROR:+"$VM_MIRROR"}
t_strap=$((SECONDS - start))

kver=$(ls "$root/usr/lib/modules" | head -n1)
# To unpack a module and to check its signature takes an emulated CPU up to seconds: neither is left.
find "$root/usr/lib/modules" -name '*.ko.xz' -exec xz -d {} +
find "$root/usr/lib/modules" -name '*.ko' -exec strip --strip-debug {} +
depmod -b "$root" "$kver"

# --- the guest's own files
cp -a "$here/guest/." "$root/"
chmod 755 "$root"/usr/local/sbin/vm-* "$root"/usr/local/lib/vmtest/*
echo vmtest >"$root/etc/hostname"
printf '127.0.0.1 localhost vmtest\n::1 localhost\n' >"$root/etc/hosts"
: >"$root/etc/fstab" # the initramfs mounts the root file system as it is to stay
echo "$key" >"$root/etc/machine-id" # set: no first-boot pass
passwd -q -R "$root" -d root 2>/dev/null || sed -i 's/^root:[^:]*:/root::/' "$root/etc/shadow"
mkdir -p "$root/payload" "$root/var/log/journal"
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../vmtest.service "$root/etc/systemd/system/multi-user.target.wants/vmtest.service"
for u in getty@tty1.service serial-getty@ttyS0.service getty-static.service \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer systemd-hwdb-update.service ldconfig.service \
	systemd-journal-catalog-update.service systemd-update-done.service \
	systemd-firstboot.service systemd-pcrmachine.service systemd-timesyncd.service \
	systemd-hibernate-clear.service systemd-tpm2-setup.service \
	systemd-tpm2-setup-early.service modprobe@configfs.service modprobe@drm.service \
	modprobe@efi_pstore.service modprobe@fuse.service sys-kernel-config.mount \
	sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount \
	systemd-pstore.service systemd-udev-load-credentials.service \
	systemd-ask-password-console.path systemd-ask-password-wall.path \
	proc-sys-fs-binfmt_misc.automount systemd-binfmt.service apparmor.service \
	systemd-logind.service systemd-user-sessions.service systemd-random-seed.service \
	systemd-sysusers.service systemd-remount-fs.service xfs_scrub_all.timer; do
	ln -sf /dev/null "$root/etc/systemd/system/$u"
done
mkdir -p "$root/etc/systemd/system-generators"
for g in "$root"/usr/lib/systemd/system-generators/*; do
	case ${g##*/} in systemd-fstab-generator) ;; *) ln -sf /dev/null "$root/etc/systemd/system-generators/${g##*/}" ;; esac
done
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/boot/initrd*

# --- kernel: uncompressed ELF, so that the guest's slow CPU need not unpack it (PVH boot)
vmlinux() { # bzImage -> vmlinux on stdout
	local f=$1 m c pos
	for m in '\x28\xb5\x2f\xfd:zstd -dcq' '\x02\x21\x4c\x18:lz4 -dcq' '\x1f\x8b\x08:gzip -dcq' '\xfd7zXZ\x00:xz -dcq'; do
		c=${m##*:}
		for pos in $(LC_ALL=C grep -aboP "${m%%:*}" "$f" | cut -d: -f1); do
			tail -c+$((pos + 1)) "$f" | $c >"$tmp/vmlinux" 2>/dev/null || true
			if [ "$(head -c4 "$tmp/vmlinux" | od -An -tx1 | tr -d ' ')" = 7f454c46 ]; then
				return 0
			fi
		done
	done
	return 1
}
if vmlinux "$root/boot/vmlinuz-$kver"; then mv "$tmp/vmlinux" "$dir/kernel"
else cp "$root/boot/vmlinuz-$kver" "$dir/kernel"; fi
cp "$root/boot/config-$kver" "$dir/kernel.config"
rm -f "$root"/boot/vmlinuz-*

# --- initramfs: loads virtio_blk and mounts the disk whose serial is "root"
ir=$tmp/initramfs
mkdir -p "$ir"/{bin,dev,proc,sys,mnt,m}
cp "$root/usr/bin/busybox" "$ir/bin/busybox" 2>/dev/null || cp "$root/bin/busybox" "$ir/bin/busybox"
n=0
for m in virtio_pci virtio_blk; do
	modprobe -d "$root" -S "$kver" --show-depends "$m" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p' | while read -r f; do
		b=$(basename "$f"); b=${b%.xz}
		grep -qx "$b" "$ir/m/order" 2>/dev/null && continue
		case $f in *.xz) xz -dc "$f" >"$ir/m/$b" ;; *) cp "$f" "$ir/m/$b" ;; esac
		echo "$b" >>"$ir/m/order"
	done
done
cat >"$ir/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
for m in $($b cat /m/order); do $b insmod /m/$m; done
i=0
while [ $i -lt 100 ]; do
	for d in /sys/block/vd*; do
		if [ "$($b cat $d/serial 2>/dev/null)" = root ]; then
			$b mount -t ext4 -o noatime,errors=remount-ro /dev/${d##*/} /mnt
			$b umount /sys; $b umount /proc; $b mount --move /dev /mnt/dev
			exec $b switch_root /mnt /sbin/init
		fi
	done
	$b sleep 0.1; i=$((i + 1))
done
echo "vm: no root disk"
$b poweroff -f
INIT
chmod 755 "$ir/init"
(cd "$ir" && find . | ./bin/busybox cpio -o -H newc 2>/dev/null) >"$dir/initramfs"

rm -f "$dir/root.img" "$dir/warm.qcow2" "$dir/warm.state" "$dir/key"
truncate -s "$size" "$dir/root.img"
mkfs.ext4 -q -F -L vmroot -m 0 -J size=16 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard -d "$root" "$dir/root.img"
{
	echo "suite=$suite"
	echo "kernel=$kver"
	for p in systemd libc6 nftables; do
		echo "$p=$(chroot "$root" dpkg-query -W -f '${Version}' "$p")"
	done
	echo "rootfs_mib=$(du -sm "$root" | cut -f1)"
	echo "image_mib=$(du -m "$dir/root.img" | cut -f1)"
	echo "kernel_mib=$(du -m "$dir/kernel" | cut -f1)"
	echo "build_s=$((SECONDS - start)) (debstrap $t_strap)"
} >"$dir/info"

# --- a booted VM, kept as a file: run.sh goes on from it instead of booting
if [ "${VM_WARM:-1}" = 1 ]; then
	w=$SECONDS
	VM_DIR=$dir "$here/run.sh" -W || { echo "vm: no warm start" >&2; rm -f "$dir"/warm.*; }
	echo "warm_s=$((SECONDS - w))" >>"$dir/info"
	[ ! -f "$dir/warm.state" ] || echo "warm_mib=$(du -cm "$dir"/warm.* | tail -n1 | cut -f1)" >>"$dir/info"
fi
echo "$key" >"$dir/key"
cat "$dir/info"
