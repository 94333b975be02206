# lib.sh: what the scripts share; sourced from the top folder, by sh and bash.
# shellcheck shell=sh

PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
export PATH

say() { printf '== %s\n' "$*"; }
die() { # die MESSAGE [HINT]
	printf 'error: %s\n' "$1" >&2
	[ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
	exit 1
}

# The release of Go the module asks for, "1.26.0".
go_wanted() { sed -n 's/^go //p' go.mod; }

# A go command of 1.21 or newer fetches the release it needs by itself.
have_go() {
	v=$(go env GOVERSION 2>/dev/null) || return 1
	case $v in go1.2[1-9]*|go1.[3-9][0-9]*) return 0 ;; *) return 1 ;; esac
}

# fetch_go: Debian 12's Go (1.19) cannot fetch newer releases by itself, but it
# can download them as the module they are published as, checksums and all.
fetch_go() {
	arch=$(go env GOARCH)
	mod=golang.org/toolchain@v0.0.1-go$(go_wanted).linux-$arch
	say "fetching Go $(go_wanted)"
	tmp=$(mktemp -d)
	(cd "$tmp" && printf 'module x\n' >go.mod && go mod download "$mod") || die "cannot download $mod" "install Go $(go_wanted) or newer"
	rm -rf "$tmp"
	tree=$(go env GOMODCACHE)/$mod
	# Modules carry no execute bits.
	find "$tree/bin" "$tree/pkg/tool" -type f -exec chmod +x {} +
	mkdir -p "$HOME/.local/share/wherry"
	ln -sfn "$tree" "$HOME/.local/share/wherry/go"
	use_fetched_go
}
use_fetched_go() {
	[ -x "$HOME/.local/share/wherry/go/bin/go" ] || return 0
	have_go || PATH=$HOME/.local/share/wherry/go/bin:$PATH
}
use_fetched_go
