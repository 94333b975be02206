package verity

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// $WHERRY_TEST_VERITY names a folder on a file system with fs-verity.
func folder(t *testing.T) string {
	dir := os.Getenv("WHERRY_TEST_VERITY")
	if dir == "" {
		dir = t.TempDir()
	}
	if err := Supported(dir); err != nil {
		if os.Getenv("WHERRY_TEST_VERITY") != "" || !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
		t.Skip("neither the kernel nor the file system of ", dir, " has fs-verity")
	}
	return dir
}

func TestSeal(t *testing.T) {
	path := filepath.Join(folder(t), "sealed")
	if err := os.WriteFile(path, []byte("content"), 0o400); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	if d, err := Measure(path); d != "" || err != nil {
		t.Error("before:", d, err)
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		if _, err := Seal(path); !errors.Is(err, ErrBusy) {
			t.Error("open for writing:", err)
		}
		w.Close()
	}
	first, err := Seal(path)
	if err != nil || len(first) != 7+64 {
		t.Fatal(first, err)
	}
	for _, f := range []func(string) (string, error){Seal, Measure} {
		if d, err := f(path); d != first || err != nil {
			t.Error("again:", d, err)
		}
	}
	if _, err := os.OpenFile(path, os.O_WRONLY, 0); !errors.Is(err, unix.EPERM) {
		t.Error("opened for writing:", err)
	}
	if b, err := os.ReadFile(path); string(b) != "content" || err != nil {
		t.Error(string(b), err)
	}
}

func TestUnsupported(t *testing.T) {
	if _, err := Seal("/proc/self/status"); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if _, err := Measure("/proc/self/status"); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	for _, f := range []func(string) (string, error){Seal, Measure} {
		if _, err := f("/none"); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
	if err := Supported("/none"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
