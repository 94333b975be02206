package supervisor

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/event"
	"github.com/wherry-run/wherry/supervisor/internal/state"
	"github.com/wherry-run/wherry/supervisor/unit"
)

const (
	// settle is how long a folder must be quiet before it is read: editors
	// write a file in several steps.
	settle = 200 * time.Millisecond
	// rescan is how often a folder is read that cannot be watched, or with a
	// file that was refused: a port becomes free, an env file appears.
	rescan = 10 * time.Second

	byFolder = "units folder"
)

// watchFolder applies the files of the units folder at the start and whenever
// they change. It closes ready after the first time, with or without a folder:
// by then the loop has shown what it adopted.
func (s *Supervisor) watchFolder(ctx context.Context) {
	for first := true; ctx.Err() == nil; first = false {
		dir := s.opts.Load().Units
		// The watch begins before the folder is read: no change falls between.
		changes, stop := watchDir(dir)
		refused := s.readFolder(ctx)
		if first {
			close(s.ready)
		}
		s.awaitChange(ctx, changes, dir != "" && (changes == nil || refused))
		stop()
	}
}

// awaitChange waits until the folder has changed and is quiet again, or until
// it is time to look again.
func (s *Supervisor) awaitChange(ctx context.Context, changes <-chan struct{}, look bool) {
	var again <-chan time.Time
	if look {
		again = time.After(cmp.Or(s.opts.Load().hooks.rescan, rescan))
	}
	select {
	case <-ctx.Done():
		return
	case <-s.refolder: // a reload: perhaps another folder
		return
	case <-again:
		return
	case <-changes:
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
		case <-time.After(settle):
			return
		}
	}
}

// watchDir reports changes in dir; nil if it cannot be watched.
func watchDir(dir string) (<-chan struct{}, func()) {
	if dir == "" {
		return nil, func() {}
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, func() {}
	}
	const mask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		unix.Close(fd)
		return nil, func() {}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	changes := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			if _, err := f.Read(b); err != nil {
				return
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	return changes, func() { f.Close(); <-done }
}

// readFolder proposes every file whose content was not taken over before. A
// file that is not valid changes nothing: its unit keeps its last revision.
func (s *Supervisor) readFolder(ctx context.Context) (refused bool) {
	o := s.opts.Load()
	m := &folderRead{dir: o.Units, auto: !o.NoAutoApply, done: make(chan struct{})}
	paths, err := unitFiles(o.Units)
	if err != nil {
		m.warnings = append(m.warnings, fmt.Sprintf("units folder %s: %v", o.Units, err))
	}
	for _, path := range paths {
		m.files = append(m.files, s.readUnitFile(path))
	}
	select {
	case s.inbox <- m:
	case <-ctx.Done():
		return false
	case <-s.over:
		return false
	}
	select {
	case <-m.done:
		return m.refused
	case <-ctx.Done():
	case <-s.over:
	}
	return false
}

func unitFiles(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		paths = append(paths, filepath.Join(dir, e.Name()))
	}
	return paths, err
}

// unitFile is one file of the folder as read.
type unitFile struct {
	path     string
	proposal proposal
	warnings []string
	err      error
}

func (s *Supervisor) readUnitFile(path string) unitFile {
	f := unitFile{path: path}
	text, err := os.ReadFile(path)
	if err != nil {
		f.err = err
		return f
	}
	hash := sha256.New()
	hash.Write(text)
	u, warns, err := unit.Parse(path, text, unit.Options{
		ReadFile: func(name string) ([]byte, error) {
			if !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(path), name)
			}
			b, err := os.ReadFile(name)
			fmt.Fprintf(hash, "\x00%s\x00%v\x00", name, err)
			hash.Write(b)
			return b, err
		},
		Dir:      filepath.Dir(path),
		Defaults: s.opts.Load().unitDefaults(),
	})
	for _, w := range warns {
		f.warnings = append(f.warnings, w.String())
	}
	f.err = err
	f.proposal = proposal{unit: u, source: path, text: string(text),
		file: &state.File{Path: path, Unit: u.Name, Digest: "sha256:" + hex.EncodeToString(hash.Sum(nil))}}
	return f
}

// folderRead is the units folder's content.
type folderRead struct {
	dir      string
	auto     bool
	files    []unitFile
	warnings []string
	refused  bool // a file was not applied; set before done is closed
	done     chan struct{}
}

// handle applies what is new. Files that depend on each other are applied
// together; if that fails, each is tried alone, so that one mistake does not
// hold back the others.
func (m *folderRead) handle(l *loop) {
	if l.descent != nil { // the next daemon sees to it
		close(m.done)
		return
	}
	old := l.warnings
	l.warnings = m.warnings
	for name := range l.pending {
		l.touch(name)
	}
	clear(l.pending)
	var fresh []unitFile
	for _, f := range m.files {
		l.warnings = append(l.warnings, f.warnings...)
		known := l.files[f.path]
		switch {
		case f.err != nil:
			m.refuse(l, f, f.err, old)
		case known.Digest == f.proposal.file.Digest:
		case !m.auto:
			l.hold(f.proposal.unit.Name, f.path, "the file is not applied yet: `wherry ctl apply "+f.path+"`")
		default:
			fresh = append(fresh, f)
		}
	}
	l.missing(m)
	if len(fresh) > 0 && m.apply(l, fresh) != nil {
		for _, f := range fresh {
			if err := m.apply(l, []unitFile{f}); err != nil {
				m.refuse(l, f, err, old)
			}
		}
	}
	l.replies = append(l.replies, func(error) { close(m.done) })
}

func (m *folderRead) apply(l *loop, files []unitFile) error {
	reply := make(chan error, 1)
	a := &applyFiles{by: byFolder, reply: reply}
	for _, f := range files {
		a.list = append(a.list, f.proposal)
	}
	a.handle(l)
	l.warnings = append(l.warnings, a.result.Warnings...)
	select {
	case err := <-reply:
		return err
	default:
		return nil // the answer comes with the step
	}
}

// refuse keeps what runs and shows why the file was not applied.
func (m *folderRead) refuse(l *loop, f unitFile, err error, before []string) {
	name := l.files[f.path].Unit
	if name == "" {
		name = strings.TrimSuffix(filepath.Base(f.path), filepath.Ext(f.path))
	}
	text := err.Error()
	if !strings.Contains(text, f.path) {
		text = f.path + ": " + text
	}
	l.warnings = append(l.warnings, text)
	m.refused = true
	l.hold(name, f.path, err.Error())
	if !slices.Contains(before, text) {
		l.event(api.Event{Type: event.ApplyFailed, Unit: name, By: byFolder, Message: text})
	}
}

// missing shows units whose file is gone. They run on: a file lost by mistake
// must not stop a service.
func (l *loop) missing(m *folderRead) {
	for path, f := range l.files {
		if m.dir == "" || filepath.Dir(path) != filepath.Clean(m.dir) || slices.ContainsFunc(m.files, func(f unitFile) bool { return f.path == path }) {
			continue
		}
		if l.units[f.Unit] == nil {
			delete(l.files, path)
			l.lazy.DeleteFile(path)
			continue
		}
		l.hold(f.Unit, path, "the file is gone; the unit stays: `wherry ctl rm "+f.Unit+"` removes it")
	}
}

func (l *loop) hold(name, source, reason string) {
	l.pending[name] = api.Pending{Source: source, Reason: reason}
	l.touch(name)
}
