#!/bin/bash
# seconds: 180
# User namespaces on the file systems of servers: ext4, XFS and Btrfs, with layers as folders and as EROFS images. What a
# container does with files in its root, in volumes, in folders of the host and in a tmpfs is the same on all of them and the
# same with a user namespace as without one; on the disk nothing belongs to anybody but the run, and volumes keep the owners
# that containers know, whatever ids the next run has. Bounds work where the file system has them, and what cannot be mounted
# with shifted ids is named.
# shellcheck disable=SC2154 # image is lib.sh's
. ./lib.sh

install_wherry
registry
config() { printf '%s\n' "$@" >/etc/wherry/wherry.yaml; systemctl restart wherry; until_true serves; }
chmod 755 .

# What ./demo files prints, but for the folder. Programs of a volume and of the root may be set-user-id, those of a tmpfs may not even run.
same="made:0:0 given:1000:1000 link:1000 mode:4755 inherited:1000"
usual="$same setuid:1000/0/a80425fb capability:1000/1000/1 socket:answers"
tmpfs="$same setuid:permission-denied capability:permission-denied socket:answers"
unit() { # unit NAME USERNS [LINE...]
	printf '%s\n' "image: $image" "userns: $2" "network: none" "no_new_privileges: false" "stop_grace_period: 1s" \
		"volumes: ['data:/data', '$fs/host:/host', '$PWD/demo:/demo:ro', {type: tmpfs, target: /scratch, size: 64MiB}]" \
		"command: [sh, -c, 'umask 022; /demo files $dirs; echo finished; exec sleep 10000']" "${@:3}" >"$1.yaml"
}
said() { w logs --no-prefix "$1"; }
finished() { [[ $(said "$1") == *finished ]]; }
all() { for d in $dirs; do [ "$d" = /scratch ] && echo "$d $tmpfs $1" || echo "$d $usual $1"; done; echo finished; }

each() { # each FORM: on $fs, with layers in that form
	local upper from disk root=$fs/$1
	config "root: $root" "layers: $1"
	case $1 in folder) dirs="/ /data /host /scratch" ;; *) dirs=/ ;; esac
	mkdir -p "$fs/host"
	disk=$(lsblk -dno NAME -e 7,11 | head -n1)
	unit own required "devices: ['/dev/$disk:/dev/disk:r']" "$bound"
	w apply --timeout 5m own.yaml
	until_true finished own
	is "$kind, $1: files with a user namespace" "$(said own)" "$(all "mknod:operation-not-permitted")"
	from=$(awk '{print $2}' "/proc/$(inst own '{{.Pid}}')/uid_map")
	[ "$from" -gt 65535 ] || fail "no range of ids"
	case $1 in
	erofs) [ -n "$(find "$root/layers" -name layer.erofs)" ] || fail "no layer is an EROFS image" ;;
	folder) [ -z "$(find "$root/layers" -name layer.erofs)" ] || fail "a layer is an EROFS image" ;;
	esac

	# One look from inside: owners of the image's files, what is copied up keeps its mode, and devices with the owners they have here.
	is "inside" "$(w exec own sh -c 'touch /tmp/given /opt/able/chown /opt/setuid; chown app /tmp/given
		stat -c "%u %a %n" / /bin/busybox /home/app/own /etc/of-root /opt/setuid /opt/able/chown
		stat -c "%F %u %g %a" /dev/disk
		dd if=/dev/disk bs=512 count=1 2>/dev/null | wc -c' | tr '\n' '|')" \
		"0 755 /|0 755 /bin/busybox|1000 600 /home/app/own|0 600 /etc/of-root|0 4755 /opt/setuid|0 755 /opt/able/chown|block special file 0 $(stat -c %g "/dev/$disk") 660|512|"
	is "a file with a capability, copied up" "$(w exec -u app own sh -c '/opt/able/chown root /tmp/given && stat -c %u /tmp/given; cat /dev/disk 2>&1')" \
		"0
cat: can't open '/dev/disk': Permission denied"
	upper=$(find "$root/runs" -name upper -type d | head -n1)
	[ -f "$upper/opt/able/chown" ] || fail "nothing was copied up"
	is "on the disk, the root" "$(stat -c '%u %a' "$upper/of-files/owned" | awk -v f="$from" '{print $1-f, $2}')" "1000 4755"
	[ "$1" = folder ] || { w rm -f own; return 0; } # where layers come from changes none of the rest
	is "on the disk, volume and folder" "$(stat -c '%u:%g' {"$root"/volumes/data/data,"$fs"/host}/of-files/{owned,socket} | xargs)" "1000:1000 0:0 1000:1000 0:0"
	bound_of own

	# Another run beside it, with other ids, has the volume's owners too; and so has one without a user namespace.
	is "another run" "$(w run --rm --name other --network none --userns required --read-only -v data:/data "$image" sh -c \
		"stat -c %u /data/of-files/owned; read -r _ from _ </proc/self/uid_map; [ \$from != $from ] && echo other ids; touch /x 2>&1; touch /data/of-other && echo written")" \
		"1000
other ids
touch: /x: Read-only file system
written"
	w rm -f own
	[ "$kind" = ext4 ] || return 0
	unit own host "$bound"
	w apply --timeout 5m own.yaml
	until_true finished own
	is "$kind: files without" "$(said own)" "$(all "mknod:done")"
	w rm -f own
	is "ids in use" "$(find /run/wherry/userns -name "*.json" | wc -l)" 0
}

bound_of() { # the root of unit $1 is bounded by 48 MiB
	[ -n "$bound" ] || return 0
	like "bounded" "$(w exec "$1" dd if=/dev/zero of=/filled bs=1M count=60 2>&1 | head -n1)" "$full"
}

run_on() { # run_on KIND MKFS OPTIONS BOUND SAYS
	kind=$1 fs=/fs/$1 bound=$4 full=$5
	echo "== $kind"
	mkdir -p "$fs"
	truncate -s 600M "$PWD/$kind.img"
	$2 "$PWD/$kind.img" >/dev/null
	mount -o "loop$3" "$PWD/$kind.img" "$fs"
	each folder
	each erofs
}
size="storage_opt: {size: 48MiB}"
run_on ext4 "mkfs.ext4 -q -O quota,project" ,prjquota "$size" "Disk quota exceeded"
run_on xfs "mkfs.xfs -q" ,prjquota "$size" "No space left on device"
run_on btrfs "mkfs.btrfs -q" "" "" ""
unit sized auto "$size"
w apply sized.yaml >out 2>&1 && fail "a bound on Btrfs"
like "a bound on Btrfs" "$(cat out)" "sized: container sized.1: rootfs: storage_opt.size:"
like "a bound on Btrfs" "$(cat out)" "is on btrfs, which has none"
w rm -f sized

echo "== what cannot be mounted with shifted ids"
mkdir -p /ramfs
mount -t ramfs ramfs /ramfs
for mode in auto required; do
	cat >odd.yaml <<U
image: $image
userns: $mode
network: none
volumes: ["/ramfs:/data"]
command: [sh, -c, "touch /data/mine; stat -c %u /data/mine; exec sleep 10000"]
stop_grace_period: 1s
restart: no
U
	why="bind /data: /ramfs: file system ramfs cannot be mounted with shifted ids"
	case $mode in
	auto) w apply odd.yaml; like "auto" "$(w status odd)" "none: $why" ;;
	required) w apply odd.yaml >out 2>&1 && fail "required"; like "required" "$(cat out)" "odd: container odd.1: userns: required: $why" ;;
	esac
	w rm -f odd
done
