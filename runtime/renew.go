package runtime

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

// Renew makes the keeper that runs the binary that Options.Keeper names, if it
// is another one: see Upgrade. It tells whether there was anything to do. A
// keeper is what its file was when it began, so the contents are compared, not
// versions or paths: that holds for keepers of every release.
func (r *Runtime) Renew(ctx context.Context) (renewed bool, err error) {
	binary, err := r.otherBuild(ctx)
	if err != nil || binary == "" {
		return false, err
	}
	if err := r.Upgrade(ctx, binary); err != nil {
		return false, err
	}
	return true, nil
}

// Outdated tells whether Renew has anything to do. An error is one that Renew would have, too.
func (r *Runtime) Outdated(ctx context.Context) (bool, error) {
	binary, err := r.otherBuild(ctx)
	return binary != "", err
}

// otherBuild is the file that Options.Keeper names, if the keeper is another build.
func (r *Runtime) otherBuild(ctx context.Context) (string, error) {
	binary, err := keeperBinary(r.options.Keeper)
	if err != nil {
		return "", fmt.Errorf("upgrade keeper: %w", err)
	}
	l, err := r.connect(ctx)
	if err != nil {
		return "", fmt.Errorf("upgrade keeper: %w", err)
	}
	same, err := sameContent(fmt.Sprintf("/proc/%d/exe", l.hello.Pid), binary)
	if err != nil {
		return "", fmt.Errorf("upgrade keeper: %w", err)
	}
	if same {
		return "", nil
	}
	return binary, nil
}

// sameContent compares a running program's file with another one. The same
// inode needs no reading: the kernel lets nobody write to it meanwhile.
func sameContent(running, binary string) (bool, error) {
	a, err := os.Open(running)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := os.Open(binary)
	if err != nil {
		return false, err
	}
	defer b.Close()
	sa, err := a.Stat()
	if err != nil {
		return false, err
	}
	sb, err := b.Stat()
	if err != nil {
		return false, err
	}
	switch {
	case os.SameFile(sa, sb):
		return true, nil
	case sa.Size() != sb.Size():
		return false, nil
	}
	x, err := digest(a)
	if err != nil {
		return false, fmt.Errorf("%s: %w", running, err)
	}
	y, err := digest(b)
	if err != nil {
		return false, fmt.Errorf("%s: %w", binary, err)
	}
	return x == y, nil
}

func digest(r io.Reader) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	_, err = io.Copy(h, r)
	h.Sum(sum[:0])
	return sum, err
}
