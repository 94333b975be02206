package image

import (
	"fmt"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/erofs"
	"github.com/wherry-run/wherry/image/internal/layer"
)

// chooseForm returns what says in which form new layers are kept. The kernel is
// tried at the first question, once.
func chooseForm(form Form, root string, log *slog.Logger) (func() Form, error) {
	switch form {
	case Folder, EROFS:
		return func() Form { return form }, nil
	case "":
		return sync.OnceValue(func() Form {
			if err := tryErofs(root); err != nil {
				log.Debug("layers are kept as folders", "err", err)
				return Folder
			}
			return EROFS
		}), nil
	}
	return nil, fmt.Errorf("layer form %q: neither %q nor %q", form, Folder, EROFS)
}

// form is how a new layer is to be kept.
func (s *Store) form() layer.Form { return layer.Form(s.chosen()) }

// tryErofs makes a small image below root and a mount of it that is in no
// namespace: Linux 6.12, and a file system below root whose files it can read.
// Images that only a loop device can mount are not chosen by themselves.
func tryErofs(root string) error {
	f, err := os.CreateTemp(root, ".erofs-*")
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	w := erofs.NewWriter(f, erofs.Options{})
	if err := w.Finish(&erofs.Inode{Mode: unix.S_IFDIR | 0o755}); err != nil {
		return err
	}
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen erofs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", f.Name()); err != nil {
		return fmt.Errorf("mount of a file: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("mount of a file: %w", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	return unix.Close(mnt)
}
