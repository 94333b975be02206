#!/bin/bash
# Runs a script as root in the test VM (systemd as PID 1, pure cgroup v2).
#
#   run.sh [options] SCRIPT [FILE…] [-- ARG…]
#
# SCRIPT and every FILE (a folder too) lie in the guest's working folder, under their
# base names. Streams the script's output, returns its exit status; 124: out of time,
# 125: the VM ended without a status (the console's end is shown).
#
#   -o DIR       what the script leaves in $VM_OUT comes back into DIR
#   -b N         allow N boots: the script runs again in each, with VM_BOOT=1, 2, …; it
#                goes on to the next with vm-reboot (clean) or vm-crash (power cut)
#   -d FILE      keep the root disk's changes in FILE (qcow2; made if missing): a later
#                run with the same FILE goes on from them
#   -t SECONDS   time limit (default 300, or VM_TIMEOUT)
#   -m MIB       memory (default 1024, or VM_MEM)
#   -c N         CPUs (default 1, or VM_CPUS: what two of them tell each other and wait for
#                takes, emulated, a quarter of all time)
#   -e K=V       set a variable for the script
#   -j           bring the journal back as journal.txt (with -o)
#   -s           shut down cleanly at the end (default: power off at once)
#   -n           give it a network card (closed user-mode network)
#   -v           show the console
#   -C           boot cold. Otherwise, and where memory, CPUs and devices are the usual
#                ones, the VM goes on from the booted state that build.sh kept (the first
#                of -b's boots; the others are real)
#   VM_DIR / VM_SUITE choose the image as in build.sh; VM_ACCEL (default tcg), VM_APPEND.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${VM_DIR:-${WHERRY_TEST_CACHE:-/var/cache/wherry-test}/vm/${VM_SUITE:-trixie}}
out= boots=1 disk= limit=${VM_TIMEOUT:-300} mem=${VM_MEM:-1024} cpus=${VM_CPUS:-1}
envs=() journal= clean= net= verbose= cold=${VM_COLD:-} warmup=
while getopts o:b:d:t:m:c:e:jsnvCW f; do
	case $f in
	o) out=$OPTARG ;; b) boots=$OPTARG ;; d) disk=$OPTARG ;; t) limit=$OPTARG ;;
	m) mem=$OPTARG ;; c) cpus=$OPTARG ;; e) envs+=("$OPTARG") ;; j) journal=1 ;;
	s) clean=1 ;; n) net=1 ;; v) verbose=1 ;; C) cold=1 ;; W) warmup=1 ;;
	*) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 125 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || [ -n "$warmup" ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 125; }
[ -f "$dir/root.img" ] || { echo "vm: no image in $dir: run build.sh" >&2; exit 125; }
script=${1:-/dev/null}; [ $# -eq 0 ] || shift
files=(); while [ $# -gt 0 ] && [ "$1" != -- ]; do files+=("$1"); shift; done
[ "${1:-}" = -- ] && shift

tmp=$(mktemp -d "${TMPDIR:-/tmp}/vmrun.XXXXXX")
qemu=
finish() {
	[ -n "$qemu" ] && kill "$qemu" 2>/dev/null
	rm -rf "$tmp"
}
trap finish EXIT
trap 'exit 130' INT TERM

# --- payload disk; always of one size, as the kept state knows it so
truncate -s 4G "$tmp/payload.img"
if [ -z "$warmup" ]; then
	pay=$tmp/payload
	mkdir -p "$pay/.vm/out"
	cp -L "$script" "$pay/"
	chmod +x "$pay/$(basename "$script")"
	for f in ${files[@]+"${files[@]}"}; do cp -aL "$f" "$pay/"; done
	{
		for e in ${envs[@]+"${envs[@]}"}; do printf 'export %q\n' "$e"; done
		printf 'exec ./%q' "$(basename "$script")"
		[ $# -eq 0 ] || printf ' %q' "$@"
		echo
	} >"$pay/.vm/cmd"
	echo "$boots" >"$pay/.vm/maxboots"
	date +%s >"$pay/.vm/epoch"
	[ -z "$journal" ] || touch "$pay/.vm/journal"
	[ -z "$clean" ] || touch "$pay/.vm/clean-shutdown"
	mkfs.ext4 -q -F -L vmpayload -m 0 -J size=4 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0 -d "$pay" "$tmp/payload.img"
fi

# --- root disk: an overlay, so that the image stays as it was built
new=1 base=$dir/root.img basefmt=raw incoming=()
if [ -n "$warmup" ]; then
	disk=$dir/warm.qcow2; rm -f "$disk"
elif [ -z "$cold$net$disk${VM_APPEND:-}${VM_MACHINE:-}${VM_CPU:-}" ] && [ "$mem.$cpus" = 1024.1 ] && [ -s "$dir/warm.state" ]; then
	base=$dir/warm.qcow2 basefmt=qcow2
	incoming=(-incoming "exec:cat '$dir/warm.state'")
fi
if [ -n "$disk" ]; then [ -e "$disk" ] && new=; else disk=$tmp/root.qcow2; fi
[ -z "$new" ] || qemu-img create -q -f qcow2 -F $basefmt -b "$(realpath "$base")" "$disk"

args=(-M "${VM_MACHINE:-q35}" -accel "${VM_ACCEL:-tcg,thread=multi,tb-size=512}" -cpu "${VM_CPU:-max,la57=off}"
	-smp "$cpus" -m "$mem" -nodefaults -no-user-config -display none -vga none
	-kernel "$dir/kernel" -initrd "$dir/initramfs"
	-append "console=ttyS0 quiet loglevel=4 panic=1 mitigations=off nokaslr nowatchdog random.trust_cpu=on tsc=reliable audit=0 no_timer_check init_on_alloc=0 rcupdate.rcu_expedited=1 ${warmup:+vmtest.warm} ${VM_APPEND:-}"
	-drive "file=$disk,if=none,id=root,format=qcow2,cache=unsafe,discard=unmap"
	-drive "file=$tmp/payload.img,if=none,id=pay,format=raw,cache=unsafe"
	-device virtio-blk-pci,drive=root,serial=root
	-device virtio-blk-pci,drive=pay,serial=payload
	-device vmgenid,guid=auto
	-device virtio-rng-pci
	-device virtio-serial-pci
	-chardev "file,id=rc,path=$tmp/rc" -device virtserialport,chardev=rc,name=vmtest.rc
	-chardev "file,id=res,path=$tmp/results.tar" -device virtserialport,chardev=res,name=vmtest.results
	-chardev "file,id=out,path=$tmp/out" -device virtserialport,chardev=out,name=vmtest.out)
if [ -n "$verbose" ]; then
	mkfifo "$tmp/con"; cat "$tmp/con" >&2 &
	args+=(-serial "file:$tmp/con")
else
	args+=(-serial "file:$tmp/console")
fi
if [ -n "$net" ]; then
	args+=(-netdev user,id=n0,restrict=on -device virtio-net-pci,netdev=n0,romfile=)
else
	args+=(-nic none)
fi
[ "$boots" -gt 1 ] || args+=(-no-reboot)

[ ${#incoming[@]} -eq 0 ] || args+=("${incoming[@]}")
if [ -n "$warmup" ]; then # boot, wait for the guest's word, write its state to a file
	rm -f "$dir/warm.state"
	mkfifo "$tmp/mon"; exec 3<>"$tmp/mon"
	args+=(-chardev stdio,id=mon,signal=off -mon chardev=mon)
	echo >"$tmp/out"
	timeout --foreground "$limit" qemu-system-x86_64 "${args[@]}" <&3 >"$tmp/monitor" &
	qemu=$!
	while [ ! -s "$tmp/rc" ] && kill -0 $qemu 2>/dev/null; do sleep 0.2; done
	sleep 1
	echo "migrate \"exec:cat >'$dir/warm.state'\"" >&3
	echo quit >&3
	st=0; wait $qemu || st=$?
	qemu=
	[ $st = 0 ] && [ -s "$dir/warm.state" ] && exit 0
	cat "$tmp/monitor" "$tmp/console" >&2
	exit 125
fi

mkfifo "$tmp/out"; cat "$tmp/out" &
cat=$!
timeout --foreground "$limit" qemu-system-x86_64 "${args[@]}" </dev/null &
qemu=$!
st=0; wait "$qemu" || st=$?
qemu=
wait "$cat" || true

if [ -n "$out" ] && [ -s "$tmp/results.tar" ]; then
	mkdir -p "$out"
	tar -C "$out" -xf "$tmp/results.tar" --no-same-owner
fi
if [ -s "$tmp/rc" ]; then exit "$(tail -n1 "$tmp/rc")"; fi
[ $st = 124 ] && echo "vm: out of time after $limit s" >&2 || echo "vm: ended without a status (qemu: $st)" >&2
[ -s "$tmp/console" ] && { echo "vm: the console's end:" >&2; tail -n 30 "$tmp/console" >&2; }
[ $st = 124 ] && exit 124
exit 125
