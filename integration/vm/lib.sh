# lib.sh: what the stories share; sourced from the guest's working folder.
# shellcheck shell=bash disable=SC2034

set -euo pipefail
image=127.0.0.1:5000/busybox:latest # of registry, below

fail() {
	echo "FAIL: $*" >&2
	journalctl -u 'wherry*' --no-pager -o short-monotonic -n 60 >&2 || true
	tail -n 20 /run/wherry/keeper.log >&2 2>/dev/null || true
	exit 1
}
is() { [ "$2" = "$3" ] || fail "$1: '$2', want '$3'"; echo "ok: $1: $2"; }
like() { [[ $2 == *"$3"* ]] || fail "$1: '$2', want '$3' in it"; echo "ok: $1: $2"; }
# until_true COMMAND...: at least two minutes, whatever the clock says. What is asked takes its time from what is waited for, so it asks
# seldom; and it starts no sleep, as a process takes longer than that here.
exec {never}<> <(:)
until_true() {
	local left=300
	while ! "$@" >/dev/null 2>&1; do
		[ $((left -= 1)) -gt 0 ] || fail "never true: $*"
		read -rt "0.$((left > 297 ? 2 : 5))" -u "$never" || true
	done
}
# proven PROGRAM PATTERN: by the tests of a package whose names match. One that skips here has proven nothing.
proven() {
	"$1" -test.v -test.run "$2" >tests.out 2>&1 || fail "$1: $(cat tests.out)"
	cat tests.out
	grep -q '^--- PASS' tests.out || fail "$1: no test $2 has passed"
	if grep -q '^ *--- SKIP' tests.out; then fail "$1: tests have skipped"; fi
}
w() { wherry ctl "$@"; }
# inst UNIT TEMPLATE: of its first instance; cont UNIT CONTAINER TEMPLATE: of a container in it.
inst() { w inspect --format "{{with index .Instances 0}}$2{{end}}" "$1"; }
cont() { w inspect --format "{{range (index .Instances 0).Containers}}{{if eq .Name \"$2\"}}$3{{end}}{{end}}" "$1"; }
# running UNIT...: all of them, asked once.
running() {
	local up u
	up=$(w list --format '{{.Name}} {{.State}}') || return
	for u; do [[ $'\n'$up$'\n' == *$'\n'"$u running"$'\n'* ]] || return; done
}
stopped() { [ "$(inst "$1" '{{.State}}')" != running ]; }
group() { echo "/sys/fs/cgroup$(inst "$1" '{{.Cgroup}}')"; }
serves() { w status; }

# install_wherry: as scripts/install does it, from the programs beside us.
install_wherry() { ./scripts/install --bin .; until_true serves; }

# registry: one in memory that serves busybox (with every applet it has) and a small web server as 127.0.0.1:5000/{busybox,web}:latest.
registry() {
	./demo registry 127.0.0.1:5000 /bin/busybox >/tmp/registry.out 2>&1 &
	registry_pid=$!
	until_true grep -q web /tmp/registry.out
}

echo "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release), Linux $(uname -r), $(systemctl --version | head -n1), boot ${VM_BOOT:-1}"
