//go:build faults

package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reach does what RUN_DIR/fault asks for at p: a line "POINT ACTION". It happens once:
// the file is renamed to fault.reached.
//
//	fail  an error, where there is somebody to tell
//	kill  SIGKILL to this process
//	init  SIGKILL to the container's first process
//	hold  wait until fault.reached is removed
func (k *Keeper) reach(p point, c *container) error {
	file := filepath.Join(k.layout.RunDir, "fault")
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	want, action, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if point(want) != p || os.Rename(file, file+".reached") != nil {
		return nil
	}
	switch action {
	case "fail":
		return fmt.Errorf("fault %s", p)
	case "kill":
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "init":
		if c != nil && c.proc != nil {
			c.proc.signal(unix.SIGKILL)
			time.Sleep(5 * time.Millisecond) // long enough to be noticed, mostly
		}
	case "hold":
		for {
			if _, err := os.Stat(file + ".reached"); err != nil {
				return nil
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}
