package keeper

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/wire"
)

// TestAsked: who asks for what a container does not have is answered at once; nobody waits whether the container ends.
func TestAsked(t *testing.T) {
	self := state{Status: runtime.Status{Pid: os.Getpid()}}
	_, noUser := execProcess(&self, &wire.ExecRequest{User: "nobody-has-this-name"})
	for _, c := range []struct {
		err  error
		want bool
	}{
		{noUser, true},
		{translate(errors.New(`unable to start container process: chdir to cwd ("/none") set in config.json failed: no such file or directory`)), true},
		{runtime.ErrCommand, true},
		{fmt.Errorf("%w: %w", runtime.ErrNotExecutable, unix.EACCES), true},
		{translate(errors.New("unable to start container process: error during container init: broken pipe")), false},
		{errors.New("init: it did not start, or was killed at once"), false},
		{&os.PathError{Op: "open", Path: "/proc/1/root", Err: unix.ENOENT}, false},
	} {
		if c.err == nil || asked(c.err) != c.want {
			t.Errorf("%v: want %v", c.err, c.want)
		}
	}
}
