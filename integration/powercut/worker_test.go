package powercut

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image"
)

func itoa(i int) string { return strconv.Itoa(i) }

// The store lives in a process of its own: one that serves a file system must
// not wait for it. It has its own mount namespace, and a boot ID of its own.
const workerEnv = "WHERRY_POWERCUT_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		work()
		return
	}
	os.Exit(m.Run())
}

// request is what the worker is to do.
type request struct {
	Do      string              `json:"do"`
	Device  string              `json:"device,omitempty"`
	Dir     string              `json:"dir,omitempty"` // mount point
	Boot    string              `json:"boot,omitempty"`
	Form    image.Form          `json:"form,omitempty"`
	Refs    []string            `json:"refs,omitempty"`
	Path    string              `json:"path,omitempty"`
	Allowed map[string][]string `json:"allowed,omitempty"` // digests by name; "": it may be missing
	Harmed  bool                `json:"harmed,omitempty"`  // layers were damaged at that time
}

// answer is what came of it.
type answer struct {
	Err   string            `json:"err,omitempty"`
	Names map[string]string `json:"names,omitempty"` // digests
	Log   []string          `json:"log,omitempty"`   // what the store said
}

type worker struct {
	dir  string
	s    *image.Store
	form image.Form
	log  lines
}

// lines keeps what is logged as warnings.
type lines struct {
	mu  sync.Mutex
	all []string
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

func work() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	w := &worker{}
	for {
		var r request
		if in.Decode(&r) != nil {
			return
		}
		var a answer
		if err := w.do(r); err != nil {
			a.Err = err.Error()
		}
		if w.s != nil {
			a.Names, _ = w.names()
		}
		w.log.mu.Lock()
		a.Log, w.log.all = w.log.all, nil
		w.log.mu.Unlock()
		if out.Encode(a) != nil {
			return
		}
	}
}

func (w *worker) do(r request) error {
	ctx := context.Background()
	switch r.Do {
	case "boot":
		return w.boot(r)
	case "halt":
		return w.halt()
	case "pull":
		return w.pull(r.Refs)
	case "remove":
		_, err := w.s.Remove(ctx, r.Refs[0])
		return err
	case "collect":
		_, err := w.s.Collect(ctx, image.GCOptions{})
		return err
	case "prepare":
		return w.prepare(r.Refs[0])
	case "repair":
		return w.repair()
	case "load":
		return w.load(r.Path)
	case "judge":
		return w.judge(r)
	}
	return fmt.Errorf("unknown: %s", r.Do)
}

// boot mounts the disk and opens the store.
func (w *worker) boot(r request) error {
	if err := os.WriteFile(filepath.Join(filepath.Dir(r.Dir), "boot_id"), []byte(r.Boot+"\n"), 0o600); err != nil {
		return err
	}
	if w.dir == "" {
		err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount(filepath.Join(filepath.Dir(r.Dir), "boot_id"), "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""))
		if err != nil {
			return err
		}
	}
	w.dir, w.form = r.Dir, r.Form
	if err := unix.Mount(r.Device, w.dir, "ext4", unix.MS_NOATIME, "errors=remount-ro"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	var err error
	w.s, err = image.Open(image.Options{
		Root: filepath.Join(w.dir, "store"), Form: r.Form, Reserve: -1,
		Logger: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	return err
}

func (w *worker) halt() error {
	var err error
	if w.s != nil {
		err = w.s.Close()
		w.s = nil
	}
	return errors.Join(err, unix.Unmount(w.dir, 0))
}

func (w *worker) pull(refs []string) error {
	errs := make([]error, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() { _, errs[i] = w.s.Pull(context.Background(), ref, image.PullOptions{Policy: image.Always}) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (w *worker) load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = w.s.Load(context.Background(), f, image.LoadOptions{})
	return err
}

func (w *worker) prepare(ref string) error {
	img, err := w.s.Get(ref)
	if err != nil {
		return err
	}
	_, err = w.s.Prepare(context.Background(), img.Digest, "c1", filepath.Join(w.dir, "c1"), image.PrepareOptions{})
	return err
}

// repair harms every layer and repairs it.
func (w *worker) repair() error {
	files, err := filepath.Glob(filepath.Join(w.dir, "store/layers/*/layer.json"))
	for _, f := range files {
		err = errors.Join(err, os.Truncate(f, 0))
	}
	_, verr := w.s.Verify(context.Background(), "", image.VerifyOptions{Repair: true})
	return errors.Join(err, verr)
}

func (w *worker) names() (map[string]string, error) {
	all, err := w.s.List()
	names := map[string]string{}
	for _, i := range all {
		for _, n := range i.Names {
			names[n] = i.Digest
		}
	}
	return names, err
}

// judge says what is wrong with the store after a power cut.
func (w *worker) judge(r request) error {
	names, err := w.names()
	if err != nil {
		return err
	}
	for name, allowed := range r.Allowed {
		if !slices.Contains(allowed, names[name]) {
			return fmt.Errorf("%s is %q, not one of %q", name, names[name], allowed)
		}
	}
	for name := range names {
		if r.Allowed[name] == nil {
			return fmt.Errorf("%s was never there", name)
		}
	}
	if err := w.whole(); err != nil && !r.Harmed {
		return err
	}
	ctx := context.Background()
	for name := range names {
		img, err := w.s.Get(name)
		if err == nil {
			_, err = w.s.Prepare(ctx, img.Digest, "after", filepath.Join(w.dir, "after"), image.PrepareOptions{})
		}
		if err != nil {
			return fmt.Errorf("start of %s: %w", name, err)
		}
		if err := w.s.Release("after"); err != nil {
			return err
		}
	}
	if err := w.whole(); err != nil {
		return fmt.Errorf("once more: %w", err)
	}
	if err := w.pull(r.Refs); err != nil {
		return fmt.Errorf("the next pull: %w", err)
	}
	return w.whole()
}

// whole fails if anything that can be seen is not whole.
func (w *worker) whole() error {
	ctx := context.Background()
	found, err := w.s.Verify(ctx, "", image.VerifyOptions{})
	if err != nil {
		return fmt.Errorf("%w: %+v", err, found)
	}
	blobs, err := os.ReadDir(filepath.Join(w.dir, "store/blobs/sha256"))
	for _, b := range blobs {
		if got, rerr := digest(filepath.Join(w.dir, "store/blobs/sha256", b.Name())); rerr != nil || got != b.Name() {
			err = errors.Join(err, fmt.Errorf("blob %s is %s, %v", b.Name(), got, rerr))
		}
	}
	layers, lerr := os.ReadDir(filepath.Join(w.dir, "store/layers"))
	for _, l := range layers {
		if len(l.Name()) != 64 {
			continue
		}
		b, rerr := os.ReadFile(filepath.Join(w.dir, "store/layers", l.Name(), "layer.json"))
		if rerr == nil && !json.Valid(b) {
			rerr = fmt.Errorf("layer.json: %q", b)
		}
		if rerr != nil {
			err = errors.Join(err, fmt.Errorf("layer %s: %w", l.Name(), rerr))
		}
	}
	for _, tmp := range []string{"blobs/tmp", "layers/tmp"} {
		left, rerr := os.ReadDir(filepath.Join(w.dir, "store", tmp))
		if err = errors.Join(err, rerr); len(left) > 0 {
			err = errors.Join(err, fmt.Errorf("%s is not empty: %v", tmp, left))
		}
	}
	return errors.Join(err, lerr)
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return hex.EncodeToString(sum.Sum(nil)), err
}
