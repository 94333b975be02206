package erofs

import "errors"

// MetadataSize is how much Finish would add to the image.
func (w *Writer) MetadataSize(root *Inode) (int64, error) { return 0, errors.ErrUnsupported }

// Finish writes the metadata and then the superblock, and has not synced anything.
// It sorts the folders' Children.
func (w *Writer) Finish(root *Inode) error { return errors.ErrUnsupported }
