package supervisor

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
)

// logsLook is how often all logs together are measured. Each by itself is bounded all the
// time, by its writer.
const logsLook = time.Minute

// boundLogs deletes the oldest files of all logs when these take too much together.
func (s *Supervisor) boundLogs(ctx context.Context) {
	for sleep(ctx, logsLook) {
		s.trimLogs()
	}
}

func (s *Supervisor) trimLogs() {
	total := s.opts.Load().LogTotal
	if total == 0 {
		total = tenthOf(s.paths.root)
	}
	if total <= 0 {
		return
	}
	removed, freed, err := runtime.TrimLogs(s.paths.logs(), total)
	if err != nil {
		s.log.Warn("old logs not deleted", "err", err)
	}
	if removed > 0 {
		s.log.Info("old logs deleted", "files", removed, "bytes", freed)
	}
}

// tenthOf is a tenth of the file system that dir is on; 0 if nobody knows.
func tenthOf(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Blocks) * st.Bsize / 10
}
