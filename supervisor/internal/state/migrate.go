package state

import (
	"errors"
	"fmt"
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
)

// ErrNewer is a state file of a later version of wherry.
var ErrNewer = errors.New("written by a newer version")

// migrations bring a file from version i to i+1. They are never changed once
// released; testdata holds a file of every version.
var migrations = []func(*bolt.Tx) error{
	func(tx *bolt.Tx) error {
		for _, name := range []string{bucketUnits, bucketRevisions, bucketAttempts, bucketFiles} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	},
}

func migrate(db *bolt.DB) error {
	version, err := readVersion(db)
	if err != nil {
		return err
	}
	if version == len(migrations) {
		return nil
	}
	if version > len(migrations) {
		return fmt.Errorf("version %d: %w (this one knows %d)", version, ErrNewer, len(migrations))
	}
	return db.Update(func(tx *bolt.Tx) error {
		for n := version; n < len(migrations); n++ {
			if err := migrations[n](tx); err != nil {
				return fmt.Errorf("migration %d: %w", n+1, err)
			}
		}
		b, err := tx.CreateBucketIfNotExists([]byte(bucketMeta))
		if err != nil {
			return err
		}
		return b.Put([]byte(keyVersion), []byte(strconv.Itoa(len(migrations))))
	})
}

func readVersion(db *bolt.DB) (int, error) {
	version := 0
	err := db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketMeta))
		if b == nil {
			return nil
		}
		var err error
		version, err = strconv.Atoi(string(b.Get([]byte(keyVersion))))
		return err
	})
	return version, err
}
