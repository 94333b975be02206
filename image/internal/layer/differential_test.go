package layer

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/imagetest"
)

var anyTime = regexp.MustCompile(` time -?[0-9]+\.[0-9]{9}`)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners, devices and overlay mounts")
	}
}

// inMountNamespace runs f in a mount namespace of its own. The thread ends with
// it, and with the thread every mount that f leaves.
func inMountNamespace(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err != nil {
			done <- fmt.Errorf("namespace: %w", err)
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// errNoImages: Linux mounts images from files from 6.12 on, and not from every
// file system.
var errNoImages = errors.New("this kernel cannot mount an EROFS file here")

// view lays layers, the topmost first, over each other as the kernel does it and
// returns what is to be seen.
func (s *Store) view(keys []string, at string) (inv inventory, err error) {
	var dirs []string
	for _, key := range keys {
		i, _ := s.Get(key)
		dir := s.Diff(key)
		if i.Form == EROFS {
			dir = s.Mount(key)
			if err := mountImage(s.Image(key), dir); err != nil {
				return nil, fmt.Errorf("%w: %w", errNoImages, err)
			}
			defer func() { err = errors.Join(err, unmount(dir)) }()
		}
		dirs = append(dirs, dir)
		if i.OpaqueRoot {
			break
		}
	}
	dirs = append(dirs, s.Empty())
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(dirs, ":")); err != nil {
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	defer func() { err = errors.Join(err, unmount(at)) }()
	inv, err = inventoryOf(at)
	if err == nil {
		inv[""] = rootLine(s, keys)
	}
	return inv, err
}

// unmount does not mind that a program which another test is just starting still
// holds a copy of a descriptor of this process, until its exec.
func unmount(at string) error { return unix.Unmount(at, unix.MNT_DETACH) }

// rootLine is what Prepare makes the root like.
func rootLine(s *Store, keys []string) string {
	for _, key := range keys {
		if i, _ := s.Get(key); i.Root != nil {
			return line(unix.S_IFDIR|i.Root.Mode, i.Root.UID, i.Root.GID, time.Time{}, "", "", 0, nil, nil)
		}
	}
	return line(unix.S_IFDIR|0o755, 0, 0, time.Time{}, "", "", 0, nil, nil)
}

// mountImage mounts from the file: Linux 6.12 and newer.
func mountImage(image, at string) error {
	return unix.Mount(image, at, "erofs", unix.MS_RDONLY, "")
}

// inventoryOf reads a folder. A name that is listed must be there.
func inventoryOf(dir string) (inventory, error) {
	type file struct {
		st unix.Stat_t
		p  string
	}
	var all []file
	type id struct{ dev, ino uint64 } // layers in images have numbers of their own each
	names := map[id][]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f := file{p: p}
		if err := unix.Lstat(p, &f.st); err != nil {
			return &fs.PathError{Op: "lstat", Path: p, Err: err}
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
		names[id{f.st.Dev, f.st.Ino}] = append(names[id{f.st.Dev, f.st.Ino}], rel)
		all = append(all, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	inv := inventory{}
	for _, f := range all {
		rel := strings.TrimPrefix(strings.TrimPrefix(f.p, dir), "/")
		var body, target string
		switch f.st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(f.p)
			if err != nil {
				return nil, err
			}
			body = string(b)
		case unix.S_IFLNK:
			if target, err = os.Readlink(f.p); err != nil {
				return nil, err
			}
		}
		group := names[id{f.st.Dev, f.st.Ino}]
		slices.Sort(group)
		inv[rel] = line(f.st.Mode, int(f.st.Uid), int(f.st.Gid), time.Unix(f.st.Mtim.Unix()), body, target, f.st.Rdev, xattrsOf(f.p), group)
	}
	return inv, nil
}

func xattrsOf(p string) map[string]string {
	names := make([]byte, 64<<10)
	n, _ := unix.Llistxattr(p, names)
	var all map[string]string
	for name := range strings.SplitSeq(string(names[:max(n, 0)]), "\x00") {
		if !visibleXattr(name) {
			continue
		}
		value := make([]byte, 64<<10)
		if n, err := unix.Lgetxattr(p, name, value); err == nil {
			if all == nil {
				all = map[string]string{}
			}
			all[name] = string(value[:n])
		}
	}
	return all
}

// fastDir is a folder in memory if that has all that layers need: on a disk file
// systems take longer than everything else here.
func fastDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "wherry-layer-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if unix.Setxattr(dir, "user.x", nil, 0) != nil || unix.Setxattr(dir, "trusted.x", nil, 0) != nil {
		return t.TempDir()
	}
	return dir
}

// TestDifferential is the proof that a stack of layers is what the image means, in
// both forms, seen through the kernel's overlay. SEED=n repeats one stack.
func TestDifferential(t *testing.T) {
	needRoot(t)
	t.Parallel()
	stacks := howMany(300, someStacks)
	tricks := map[string]int{}
	inMountNamespace(t, func() error {
		// The kernel mounts no image from a file in memory.
		stores := map[Form]*Store{Folder: openStore(t, filepath.Join(fastDir(t), "store")), EROFS: newStore(t)}
		defer stores[Folder].Close()
		at := t.TempDir()
		for seed := range uint64(stacks) {
			if only := os.Getenv("SEED"); only != "" && only != fmt.Sprint(seed) {
				continue
			}
			g := newGenerator(seed)
			layers := g.stack()
			for k, n := range g.tricks {
				tricks[k] += n
			}
			want := g.o.inventory()
			for form, s := range stores {
				keys, err := addAll(s, form, layers)
				if err != nil {
					t.Errorf("seed %d, %s: %v\n%s", seed, form, err, listing(layers))
					continue
				}
				got, err := s.view(keys, at)
				if errors.Is(err, errNoImages) {
					t.Logf("seed %d: EROFS is left out: %v", seed, err)
					delete(stores, EROFS)
					continue
				}
				if err != nil {
					return err
				}
				for _, key := range keys {
					s.mustCheck(t, key)
				}
				if d := got.diff(want); len(d) > 0 {
					t.Errorf("seed %d, %s: %s\n%s", seed, form, strings.Join(d, "\n"), listing(layers))
				}
			}
			if t.Failed() {
				return nil
			}
		}
		return nil
	})
	t.Logf("%d stacks, tricks: %v", stacks, tricks)
	for _, must := range []string{"folder", "file", "symlink", "hard link", "hard link to a lower file", "fifo", "device", "device 0:0",
		"whiteout", "whiteout, then anew", "whiteout of nothing", "opaque", "replaced twice", "root"} {
		if tricks[must] < stacks/15 && os.Getenv("SEED") == "" {
			t.Errorf("the generator has made %q only %d times", must, tricks[must])
		}
	}
}

// addAll adds the layers, the lowest first, and returns the keys, the topmost first.
func addAll(s *Store, form Form, layers [][]entry) ([]string, error) {
	var keys []string
	for _, l := range layers {
		key, _, err := s.add(form, imagetest.Archive(l...), keys...)
		if err != nil {
			return nil, err
		}
		keys = append([]string{key}, keys...)
	}
	return keys, nil
}

func listing(layers [][]entry) string {
	var b strings.Builder
	for i, l := range layers {
		fmt.Fprintf(&b, "layer %d\n", i)
		for _, e := range l {
			e.Body = fmt.Sprintf("%.20s", e.Body)
			fmt.Fprintf(&b, "  %+q type %c link %q mode %o xattrs %q\n", e.Name, max(e.Type, '-'), e.Link, e.Mode, slices.Collect(maps.Keys(e.Xattrs)))
		}
	}
	return b.String()
}

// umociDiffers are the stacks of which umoci makes something else than the oracle,
// and why the text of the specification is on the oracle's side, or on none.
//
// Besides, umoci does the following in general, and the generator's tame stacks or
// the comparison leave it out:
//
//   - It does not give folders their times back after it has changed what is in
//     them. The text has mtime among the attributes that a layer carries.
//   - Folders that no entry describes have the time of day, and inherit the group
//     and its bit. The text is silent; ours are like the lower layers' or 0755 0:0.
//   - Times before 1901 and after 2262 are set to another time, and attributes with an
//     empty value are lost. Both are attributes that a layer carries.
//   - A device 0:0 is made. In an overlay that is a whiteout: see doc.go.
//   - trusted.* and security.* attributes are taken from the archive. The text
//     wants xattrs; that these steer the host is why they are not.
var umociDiffers = map[uint64]string{
	36:  "a folder that only a whiteout has been in and then a whiteout deletes: nothing is left of it; the oracle leaves it, empty, as it would if it had not been deleted",
	51:  "an opaque mark in a folder that a whiteout has deleted: as above",
	106: "an entry goes through a symlink that a later opaque mark deletes: the text does not say whether whiteouts count first",
	214: "an opaque mark in a folder that a whiteout has deleted: as above",
}

// like makes lines comparable with umoci's: see TestLikeUmoci.
func (inv inventory) like(want inventory) {
	for p, w := range want {
		if strings.HasPrefix(w, "4") && len(inv[p]) > 0 {
			w, inv[p] = anyTime.ReplaceAllString(w, " time any"), anyTime.ReplaceAllString(inv[p], " time any")
			want[p] = w
		}
		if strings.HasPrefix(w, "40755 0:0 time any") && strings.HasPrefix(inv[p], "4") {
			inv[p] = w
		}
	}
}

func writeLayout(dir string, layers [][]entry) error {
	type desc struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	put := func(mediaType string, b []byte) (desc, error) {
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		return desc{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(b)}, os.WriteFile(filepath.Join(dir, "blobs/sha256", sum), b, 0o644)
	}
	var ls []desc
	ids := []string{}
	for _, l := range layers {
		d, err := put("application/vnd.oci.image.layer.v1.tar", imagetest.Archive(l...))
		if err != nil {
			return err
		}
		ls, ids = append(ls, d), append(ids, d.Digest)
	}
	config, _ := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	c, err := put("application/vnd.oci.image.config.v1+json", config)
	if err != nil {
		return err
	}
	manifest, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": c, "layers": ls})
	m, err := put("application/vnd.oci.image.manifest.v1+json", manifest)
	if err != nil {
		return err
	}
	m.Annotations = map[string]string{"org.opencontainers.image.ref.name": "x"}
	index, _ := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []desc{m}})
	return errors.Join(os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// TestLikeUmoci compares the oracle with what umoci makes of the same stacks.
func TestLikeUmoci(t *testing.T) {
	needRoot(t)
	t.Parallel()
	umoci, err := exec.LookPath("umoci")
	if err != nil {
		t.Skip("umoci is not installed: scripts/setup test")
	}
	base := fastDir(t)
	compared := 0
	for seed := range uint64(howMany(300, someStacks)) { // SEED=n repeats one
		if only := os.Getenv("SEED"); only != "" && only != fmt.Sprint(seed) {
			continue
		}
		if umociDiffers[seed] != "" {
			continue
		}
		g := newGenerator(seed)
		g.tame = true
		layers := g.stack()
		oci, bundle := filepath.Join(base, fmt.Sprint("o", seed)), filepath.Join(base, fmt.Sprint("b", seed))
		if err := writeLayout(oci, layers); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd := exec.Command(umoci, "unpack", "--image", oci+":x", bundle)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Errorf("seed %d: umoci: %v: %s\n%s", seed, err, &out, listing(layers))
			continue
		}
		got, err := inventoryOf(filepath.Join(bundle, "rootfs"))
		if err != nil {
			t.Fatal(err)
		}
		compared++
		want := g.o.inventory()
		got[""] = want[""]
		got.like(want)
		if d := got.diff(want); len(d) > 0 {
			t.Errorf("seed %d: %s\n%s", seed, strings.Join(d, "\n"), listing(layers))
		}
	}
	t.Logf("%d stacks are the same", compared)
}

// TestRealTrees unpacks what Debian and npm have made on this machine.
func TestRealTrees(t *testing.T) {
	needRoot(t)
	t.Parallel()
	tarBin, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("GNU tar is not installed")
	}
	for name, roots := range map[string][]string{
		"debian": {"/usr/share/zoneinfo", "/usr/share/perl5", "/etc", "/usr/lib/x86_64-linux-gnu/perl-base", "/usr/sbin"},
		"npm":    {"/usr/share/nodejs", "/usr/lib/node_modules", "/usr/local/lib/node_modules"},
	} {
		t.Run(name, func(t *testing.T) { realTree(t, tarBin, roots) })
	}
}

func realTree(t *testing.T, tarBin string, wanted []string) {
	roots := slices.DeleteFunc(slices.Clone(wanted), func(p string) bool {
		_, err := os.Stat(p)
		return err != nil
	})
	if len(roots) == 0 {
		t.Skipf("this machine has none of %v", wanted)
	}
	roots = roots[:howMany(len(roots), 1)]
	// GNU tar of one tree, and of half of it once more: a second layer.
	base := t.TempDir()
	plain := filepath.Join(base, "plain")
	if err := os.Mkdir(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	keys := map[Form][]string{}
	for i, part := range [][]string{roots, roots[:(len(roots)+1)/2]} {
		args := []string{"--format=posix", "--numeric-owner", "--xattrs", "--acls", "--one-file-system", "-cf", "-"}
		archive, err := exec.Command(tarBin, append(args, part...)...).Output()
		if err != nil {
			t.Skipf("tar cannot read it: %v", err)
		}
		cmd := exec.Command(tarBin, "--numeric-owner", "--xattrs", "--acls", "-xpf", "-", "-C", plain)
		cmd.Stdin = bytes.NewReader(archive)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("tar: %v: %s", err, out)
		}
		for _, form := range forms {
			key, res, err := s.add(form, archive, keys[form]...)
			if err != nil {
				t.Fatal(err)
			}
			s.mustCheck(t, key)
			keys[form] = append([]string{key}, keys[form]...)
			t.Logf("layer %d, %s: %d entries, %d bytes", i, form, res.Entries, res.Size)
		}
	}
	inMountNamespace(t, func() error {
		want, err := inventoryOf(plain)
		if err != nil {
			return err
		}
		for p := range want { // folders that no entry describes
			for _, root := range roots {
				if strings.HasPrefix(strings.TrimPrefix(root, "/"), p+"/") || p == "" {
					want[p] = "40755 0:0 time any"
				}
			}
		}
		for _, form := range forms {
			got, err := s.view(keys[form], t.TempDir())
			if errors.Is(err, errNoImages) {
				t.Log(err)
				continue
			}
			if err != nil {
				return err
			}
			if d := got.diff(want); len(d) > 0 {
				t.Errorf("%s: %d differ, such as %s", form, len(d), d[0])
			}
		}
		return nil
	})
}
