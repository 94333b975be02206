package state

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

const (
	bucketMeta      = "meta"
	bucketUnits     = "units"
	bucketRevisions = "revisions"
	bucketAttempts  = "attempts"
	bucketFiles     = "files"

	keyVersion = "version"
	keyOldest  = "oldest"
)

// ErrNewer is a state file of a later version of wherry.
var ErrNewer = errors.New("written by a newer version")

// migration brings a file from one version to the next.
type migration struct {
	run func(*bolt.Tx) error
	// oldest is the first version whose code can still work with the file. A
	// migration that only adds what older code does not look at keeps its
	// predecessor's; it must then bear what older code wrote after a downgrade.
	oldest int
}

// migrations: number i leads from version i to i+1. They are never changed once
// released; testdata holds a file of every version.
var migrations = []migration{
	{oldest: 1, run: func(tx *bolt.Tx) error {
		for _, name := range []string{bucketUnits, bucketRevisions, bucketAttempts, bucketFiles} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	}},
}

// backup is where the file lies as it was in a version, before the next one
// wrote to it.
func backup(path string, version int) string {
	return path + ".bak-" + strconv.Itoa(version)
}

// migrate brings the file at path to the newest version that steps know. A copy
// of what was there is on disk before anything is written.
func migrate(db *bolt.DB, path string, steps []migration) error {
	version, oldest, err := readVersion(db)
	switch {
	case err != nil:
		return err
	case version == len(steps):
		return nil
	case version > len(steps) && oldest <= len(steps):
		return nil // a downgrade, and we can work with it; the version stays
	case version > len(steps):
		return newer(path, version, len(steps))
	}
	if version > 0 {
		if err := keep(db, backup(path, version)); err != nil {
			return fmt.Errorf("copy before migration to version %d: %w", len(steps), err)
		}
	}
	return db.Update(func(tx *bolt.Tx) error {
		for n := version; n < len(steps); n++ {
			if err := steps[n].run(tx); err != nil {
				return fmt.Errorf("migration %d: %w", n+1, err)
			}
		}
		b, err := tx.CreateBucketIfNotExists([]byte(bucketMeta))
		if err != nil {
			return err
		}
		return errors.Join(
			b.Put([]byte(keyVersion), []byte(strconv.Itoa(len(steps)))),
			b.Put([]byte(keyOldest), []byte(strconv.Itoa(steps[len(steps)-1].oldest))),
		)
	})
}

// newer is the refusal of a file that this version cannot work with. It names
// the copies that it could.
func newer(path string, version, known int) error {
	err := fmt.Errorf("version %d: %w (this one knows %d)", version, ErrNewer, known)
	for v := known; v > 0; v-- {
		copied := backup(path, v)
		if exists(copied) {
			return fmt.Errorf("%w; upgrade wherry again, or put back the copy from before the upgrade, without what changed since: mv %s %s", err, copied, path)
		}
	}
	return fmt.Errorf("%w; upgrade wherry again: there is no copy from before the upgrade in %s", err, filepath.Dir(path))
}

// readVersion is 0 for a new file.
func readVersion(db *bolt.DB) (version, oldest int, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketMeta))
		if b == nil {
			return nil
		}
		var err error
		if version, err = strconv.Atoi(string(b.Get([]byte(keyVersion)))); err != nil {
			return fmt.Errorf("version: %w", err)
		}
		oldest = version // the first releases did not say
		if raw := b.Get([]byte(keyOldest)); raw != nil {
			if oldest, err = strconv.Atoi(string(raw)); err != nil {
				return fmt.Errorf("oldest version: %w", err)
			}
		}
		return nil
	})
	return version, oldest, err
}
