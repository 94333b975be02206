package doctor

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// host is what can be read of this machine.
type host struct {
	root    string // stands before all paths; tests have a folder with fakes
	release string // of the kernel
	uid     int
	now     func() time.Time
	built   time.Time // when this program was; zero: unknown
}

func thisHost() *host {
	h := &host{uid: os.Geteuid(), now: time.Now, built: built()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.release = unix.ByteSliceToString(u.Release[:])
	}
	return h
}

func (h *host) path(p string) string { return filepath.Join(h.root, p) }

// raw is a file's content; empty if it cannot be read.
func (h *host) raw(p string) string {
	b, _ := os.ReadFile(h.path(p))
	return string(b)
}

// read is raw without the space around it.
func (h *host) read(p string) string { return strings.TrimSpace(h.raw(p)) }

func (h *host) exists(p string) bool {
	_, err := os.Stat(h.path(p))
	return err == nil
}

func (h *host) modTime(p string) time.Time {
	info, err := os.Stat(h.path(p))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// number reads a file with one.
func (h *host) number(p string) (int64, bool) {
	n, err := strconv.ParseInt(h.read(p), 10, 64)
	return n, err == nil
}

// family is the kind of distribution, by which commands differ: "debian",
// "fedora" or empty.
func (h *host) family() string {
	var ids []string
	text := cmp.Or(h.read("/etc/os-release"), h.read("/usr/lib/os-release"))
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "ID" || key == "ID_LIKE" {
			ids = append(ids, strings.Fields(strings.Trim(value, `"'`))...)
		}
	}
	for _, id := range ids {
		switch id {
		case "debian", "ubuntu":
			return "debian"
		case "fedora", "rhel", "centos", "amzn":
			return "fedora"
		}
	}
	return ""
}

// choose is the command of this host's family; of one that is not known, both.
func (h *host) choose(debian, fedora string) string {
	switch h.family() {
	case "debian":
		return debian
	case "fedora":
		return fedora
	}
	return fmt.Sprintf("%s (Debian, Ubuntu), or %s (Fedora, RHEL)", debian, fedora)
}

// bootWith has the kernel start with one more word on its command line.
func (h *host) bootWith(word string) string {
	return h.choose(
		fmt.Sprintf(`sed -i 's/^GRUB_CMDLINE_LINUX="/&%s /' /etc/default/grub && update-grub && reboot`, word),
		fmt.Sprintf("grubby --update-kernel=ALL --args=%s && reboot", word))
}

// load has the kernel load a module now and at each boot.
func load(module string) string {
	return fmt.Sprintf("modprobe %[1]s && echo %[1]s >>/etc/modules-load.d/wherry.conf", module)
}

// systemd tells whether it is PID 1 (sd_booted(3)).
func (h *host) systemd() bool { return h.exists("/run/systemd/system") }

// sysctlFolders in the order of sysctl.d(5): a file of the first hides those of the same
// name in the others.
var sysctlFolders = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"}

// setting is a line of a file.
type setting struct {
	file  string
	line  int
	value string
}

// sysctlFile is the line that decides on a key at each boot; false if no file has it.
func (h *host) sysctlFile(key string) (last setting, found bool) {
	files := map[string]string{}
	for _, dir := range slices.Backward(sysctlFolders) {
		entries, _ := os.ReadDir(h.path(dir))
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".conf") {
				files[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	paths := make([]string, 0, len(names)+1)
	for _, name := range names {
		paths = append(paths, files[name])
	}
	for _, p := range append(paths, "/etc/sysctl.conf") { // procps reads it last
		number := 0
		for line := range strings.Lines(h.raw(p)) {
			number++
			name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "-"), "=")
			if ok && strings.ReplaceAll(strings.TrimSpace(name), "/", ".") == key {
				last, found = setting{p, number, strings.TrimSpace(value)}, true
			}
		}
	}
	return last, found
}

// setSysctl sets a key now and at each boot.
func (h *host) setSysctl(key, value string) string {
	if s, ok := h.sysctlFile(key); ok && s.value != value {
		return fmt.Sprintf("sed -i '%d s|.*|%s = %s|' %s && sysctl -w %s=%s", s.line, key, value, s.file, key, strconv.Quote(value))
	}
	return fmt.Sprintf("echo '%s = %s' >>/etc/sysctl.d/90-wherry.conf && sysctl -w %s=%s", key, value, key, strconv.Quote(value))
}

// size is a number of bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1023.95 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

// share is a part in percent.
func share(part, whole int64) int64 {
	if whole <= 0 {
		return 0
	}
	return int64(float64(part) / float64(whole) * 100)
}
