package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// openrcStubs stand for the functions that openrc-run gives a service, and print what they are asked.
const openrcStubs = `
yesno() { case $1 in [Yy][Ee][Ss]) return 0 ;; *) return 1 ;; esac; }
checkpath() { echo "checkpath $*"; }
ewarn() { echo "warning: $*"; }
ebegin() { echo "$*"; }
eend() { echo "ended with $1"; return "$1"; }
need() { echo "need $*"; }
use() { :; }
after() { :; }
RC_SVCNAME=wherry
`

// TestOpenRC: the functions of the service that we ship, without OpenRC. Only a host that goes down has its units stopped.
func TestOpenRC(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "wherry")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho wherry \"$@\"\nexit ${FAILS:-0}\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(call string, env ...string) string {
		t.Helper()
		c := exec.Command("sh", "-euc", openrcStubs+". ../scripts/package/openrc/wherry\n"+call)
		c.Env = append(append(os.Environ(), "WHERRY="+program), env...)
		out, _ := c.CombinedOutput()
		return string(out)
	}
	for _, c := range []struct {
		call, env, want string
	}{
		{"depend", "A=", "need localmount\n"},
		{"start_pre", "A=", "checkpath --directory --mode 0711 /run/wherry\ncheckpath --directory --mode 0755 /etc/wherry/units\n"},
		{`echo "$supervisor $command $command_args"`, "WHERRY_FLAGS=--debug", "supervise-daemon " + program + " daemon --debug\n"},
		{"stop_pre", "A=", ""},
		{"stop_pre", "RC_GOINGDOWN=YES", "wherry ctl shutdown\n"},
		{"RC_GOINGDOWN=YES; stop_pre; echo goes on", "FAILS=1", "wherry ctl shutdown\nwarning: wherry: units were not stopped in order\ngoes on\n"},
		{"reload", "A=", "Reloading wherry\nwherry ctl reload\nended with 0\n"},
		{"reload || echo failed", "FAILS=2", "Reloading wherry\nwherry ctl reload\nended with 2\nfailed\n"},
	} {
		if got := run(c.call, c.env); got != c.want {
			t.Errorf("%s, %s: %q, want %q", c.call, c.env, got, c.want)
		}
	}
}
