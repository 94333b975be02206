package keeper

import (
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The exit record, see struct wherry_record in init.h.
const (
	recordMagic = 0x77687231
	recordSize  = 24
)

// makeRecord makes the file that the container's init writes its child's wait
// status to. It is written full of zeros first: on a full tmpfs the start
// fails, instead of the truth getting lost at the end.
func makeRecord(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(make([]byte, recordSize)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readRecord returns what the init wrote; ok is false if it wrote nothing.
func readRecord(path string) (ws unix.WaitStatus, at time.Time, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, time.Time{}, false
	}
	return parseRecord(b)
}

func parseRecord(b []byte) (ws unix.WaitStatus, at time.Time, ok bool) {
	if len(b) < recordSize || binary.NativeEndian.Uint32(b) != recordMagic {
		return 0, time.Time{}, false
	}
	ws = unix.WaitStatus(binary.NativeEndian.Uint32(b[4:]))
	sec := int64(binary.NativeEndian.Uint64(b[8:]))
	nsec := int64(binary.NativeEndian.Uint64(b[16:]))
	return ws, time.Unix(sec, nsec), ws.Exited() || ws.Signaled()
}
