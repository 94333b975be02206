package event

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/wherry-run/wherry/supervisor/api"
)

// reader walks through the segments. It keeps its file open between calls, so
// that a follower reads only what is new.
type reader struct {
	dir   string
	last  uint64 // the last sequence number yielded
	first uint64 // of the open segment
	file  *os.File
	buf   *bufio.Reader
	part  []byte // of a line whose end is not written yet
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// read yields what stands in the files up to number upTo. It is false when the
// consumer wants no more.
func (r *reader) read(ctx context.Context, upTo uint64, yield func(api.Event, error) bool) (bool, error) {
	for ctx.Err() == nil {
		if r.file == nil {
			ok, err := r.open()
			if err != nil || !ok {
				return err == nil, err
			}
		}
		more, err := r.drain(ctx, yield)
		if err != nil || !more {
			return false, err
		}
		if r.last >= upTo {
			return true, nil
		}
		next, err := r.next()
		if err != nil {
			return false, err
		}
		if !next {
			return true, nil
		}
	}
	return false, nil
}

// open opens the segment that holds the event after last.
func (r *reader) open() (bool, error) {
	for {
		segs, err := segments(r.dir)
		if err != nil || len(segs) == 0 {
			return false, err
		}
		i := 0
		for i+1 < len(segs) && segs[i+1].first <= r.last+1 {
			i++
		}
		err = r.use(segs[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted between the listing and here
		}
		return err == nil, err
	}
}

// next goes to the segment after the open one, if there is one.
func (r *reader) next() (bool, error) {
	segs, err := segments(r.dir)
	if err != nil {
		return false, err
	}
	for _, s := range segs {
		if s.first > r.first {
			return true, r.use(s)
		}
	}
	return false, nil
}

func (r *reader) use(s segment) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	r.close()
	r.file, r.first, r.part = f, s.first, nil
	r.buf = bufio.NewReader(f)
	return nil
}

func (r *reader) drain(ctx context.Context, yield func(api.Event, error) bool) (bool, error) {
	for ctx.Err() == nil {
		line, err := r.buf.ReadBytes('\n')
		r.part = append(r.part, line...)
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		var e api.Event
		bad := json.Unmarshal(r.part, &e)
		r.part = nil
		if bad != nil || e.Seq <= r.last {
			continue
		}
		r.last = e.Seq
		if !yield(e, nil) {
			return false, nil
		}
	}
	return false, nil
}

// repair cuts off what a crash left unfinished at the end of a segment and
// returns its size and last sequence number.
func repair(path string) (int64, uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	whole := int64(len(b))
	for len(b) > 0 {
		start := bytes.LastIndexByte(b[:len(b)-1], '\n') + 1
		var e api.Event
		if b[len(b)-1] == '\n' && json.Unmarshal(b[start:], &e) == nil && e.Seq > 0 {
			return cut(path, whole, int64(len(b)), e.Seq)
		}
		b = b[:start]
	}
	return cut(path, whole, 0, 0)
}

func cut(path string, from, to int64, seq uint64) (int64, uint64, error) {
	if from == to {
		return to, seq, nil
	}
	return to, seq, os.Truncate(path, to)
}
