package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteJSON puts v at path: whoever reads it, also after a crash of the
// program, sees the old value or the new one. It does not sync, because what
// is kept this way ends with the machine's uptime anyway.
func WriteJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return WriteFile(path, b, 0o600)
}

// WriteFile puts b at path, as WriteJSON does.
func WriteFile(path string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = replace(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// replace gives the file at temp the name path, in whose place another may be. The two
// change places and the older goes: for a rename over a file ext4 gives the new one its blocks
// and starts to write it to disk at once (auto_da_alloc), and the removal
// soon after waits for that. Nothing here is to be on disk.
func replace(temp, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if err == nil {
		return os.Remove(temp)
	}
	return os.Rename(temp, path) // there is none yet, or the file system cannot
}

// RemoveTemporary removes what writers that were killed left in the folder.
// Nobody may be writing there.
func RemoveTemporary(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
