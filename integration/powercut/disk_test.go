package powercut

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	diskSize = 128 << 20
	piece    = 4096 // what a disk writes whole or not at all
)

// event is a write that was done, or, without data, a flush that has begun.
type event struct {
	at   int64
	data []byte
}

func (e event) flush() bool { return e.data == nil }

// medium is what the disk has on it. Its changes are kept beside the base.
type medium struct {
	mu      sync.Mutex
	base    []byte
	changed map[int64]*[piece]byte // by number; nil: changes go into the base
	log     []event
	logging bool
}

func (m *medium) read(p []byte, off int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := copy(p, m.base[off:])
	for i := off / piece; i <= (off+int64(n)-1)/piece && m.changed != nil; i++ {
		if b := m.changed[i]; b != nil {
			from := max(0, off-i*piece)
			copy(p[i*piece+from-off:], b[from:])
		}
	}
}

func (m *medium) write(p []byte, off int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.logging {
		m.log = append(m.log, event{off, append([]byte{}, p...)})
	}
	m.put(p, off)
}

func (m *medium) put(p []byte, off int64) {
	if m.changed == nil {
		copy(m.base[off:], p)
		return
	}
	for len(p) > 0 {
		i, from := off/piece, off%piece
		b := m.changed[i]
		if b == nil {
			b = (*[piece]byte)(append([]byte{}, m.base[i*piece:(i+1)*piece]...))
			m.changed[i] = b
		}
		n := copy(b[from:], p)
		p, off = p[n:], off+int64(n)
	}
}

func (m *medium) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.logging {
		m.log = append(m.log, event{})
	}
}

// position is how long the log is.
func (m *medium) position() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.log)
}

// node is the file that stands for the disk.
type node struct {
	fs.Inode
	mu sync.Mutex
	m  *medium
}

func (n *node) medium() *medium {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.m
}

func (n *node) insert(m *medium) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.m = m
}

// Getattr and the others are the calls that the loop device needs.
func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o600, diskSize
	return 0
}

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	dest = dest[:max(0, min(int64(len(dest)), diskSize-off))]
	n.medium().read(dest, off)
	return fuse.ReadResultData(dest), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if off+int64(len(data)) > diskSize {
		return 0, syscall.ENOSPC
	}
	n.medium().write(data, off)
	return uint32(len(data)), 0
}

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.medium().flush()
	return 0
}

// newDisk makes a block device whose content is n's medium.
func newDisk(t *testing.T) (n *node, device string) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for FUSE and a loop device")
	}
	dir := t.TempDir()
	root := &fs.Inode{}
	n = &node{m: &medium{}}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, MaxWrite: 1 << 20, FsName: "powercut", Name: "powercut"},
		OnAdd: func(ctx context.Context) {
			root.AddChild("disk", root.NewPersistentInode(ctx, n, fs.StableAttr{Mode: fuse.S_IFREG}), false)
		},
	})
	if err != nil {
		t.Skip("no FUSE here: ", err)
	}
	t.Cleanup(func() {
		err := server.Unmount()
		// A loop device that somebody else has open, as who looks at every disk has, lets
		// go of its file only when that is closed.
		for range 1200 {
			if err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
			err = server.Unmount()
		}
		t.Error("unmount:", err)
	})
	return n, loop(t, filepath.Join(dir, "disk"))
}

// loop attaches a loop device to a file.
func loop(t *testing.T, file string) string {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no loop devices here: ", err)
	}
	defer control.Close()
	for range 20 { // others look for a free one, too
		i, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Skip("no free loop device: ", err)
		}
		path := "/dev/loop" + itoa(i)
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Skip("no loop device: ", err)
		}
		conf := unix.LoopConfig{Fd: uint32(f.Fd()), Size: 4096}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &conf)
		dev.Close() // while it is open, the kernel keeps what it has read of the last medium
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			t.Fatal("loop device: ", err)
		}
		t.Cleanup(func() { detach(t, path) })
		return path
	}
	t.Skip("others take every loop device")
	return ""
}

func detach(t *testing.T, device string) {
	dev, err := os.OpenFile(device, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0), dev.Close())
	}
	if err != nil {
		t.Error("detach: ", err)
	}
}

// imageOf reads a file into memory that is only taken where it is not zero.
func imageOf(t *testing.T, path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, diskSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}
