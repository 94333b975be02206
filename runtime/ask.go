package runtime

import (
	"context"
	"fmt"

	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// KeeperState is what a keeper says of itself, and how it stands to the binary
// that a daemon would start.
type KeeperState struct {
	Pid     int
	Build   string // its version
	Managed bool   // a service manager runs it
	Refused string // why the last binary that should have replaced it has given way
	Binary  string // the binary that is installed; empty: there is none
	Same    bool   // it runs that binary
}

// AskKeeper asks the keeper at o.RunDir and leaves it alone otherwise: none is
// started or replaced. An error says that nobody answers; Binary is set all the same.
func AskKeeper(ctx context.Context, o Options) (KeeperState, error) {
	var s KeeperState
	binary, missing := keeperBinary(o.Keeper)
	if missing == nil {
		s.Binary = binary
	}
	l, err := dial(ctx, bundle.Layout{Root: o.Root, RunDir: o.RunDir}.Socket())
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrKeeper, err)
	}
	defer l.close()
	s.Pid, s.Build, s.Managed, s.Refused = l.hello.Pid, l.hello.Build, l.hello.Managed, l.hello.Refused
	if missing == nil {
		if s.Same, err = sameContent(fmt.Sprintf("/proc/%d/exe", s.Pid), binary); err != nil {
			return s, nil // it cannot be told, which is as good as another one
		}
	}
	return s, nil
}
