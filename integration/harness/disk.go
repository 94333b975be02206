package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Ext4 puts an ext4 of size bytes under Root, before Start, made and mounted with
// further options. It returns why if this machine cannot.
func (h *Host) Ext4(size int64, mkfs []string, mount string) (why string) {
	h.t.Helper()
	file := filepath.Join(h.Dir, "disk")
	f, err := os.Create(file)
	if err != nil {
		h.t.Fatal(err)
	}
	f.Close()
	if err := os.Truncate(file, size); err != nil {
		h.t.Fatal(err)
	}
	if mount != "" {
		mount = "," + mount
	}
	for _, args := range [][]string{
		append(append([]string{"mkfs.ext4", "-q", "-F", "-m", "0"}, mkfs...), file),
		{"mount", "-o", "loop" + mount, file, h.Root},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return strings.Join(args, " ") + ": " + strings.TrimSpace(string(out)+" "+err.Error())
		}
	}
	h.small = true
	return ""
}

// Loops lists the loop devices of files of this host, but for its own disk.
func (h *Host) Loops() (l []string) {
	all, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, p := range all {
		b, _ := os.ReadFile(p)
		if file := strings.TrimSpace(string(b)); strings.HasPrefix(file, h.Dir+"/") && file != h.Dir+"/disk" {
			l = append(l, p+" "+file)
		}
	}
	return l
}

// FreeBytes is what the file system of Root has free.
func (h *Host) FreeBytes() int64 {
	h.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(h.Root, &st); err != nil {
		h.t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}
