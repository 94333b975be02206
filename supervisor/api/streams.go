package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// RunOutput says where the parts of a run's stream go. Nil parts are dropped.
type RunOutput struct {
	Stdout, Stderr io.Writer
	Progress       func(Progress)    // of the image's pull
	Created        func(unit string) // the unit has started
}

// RunResult is what became of a run. Exit is nil if it was not attached.
type RunResult struct {
	Unit string
	Exit *Exit
}

// Run starts a unit. With r.Attach it returns at the unit's end, after all its
// output. When ctx ends before the unit has started, nothing of it is left;
// later, the unit goes on.
func (c *Client) Run(ctx context.Context, r RunRequest, o RunOutput) (RunResult, error) {
	var result RunResult
	res, err := c.open(ctx, http.MethodPost, "/run", nil, r)
	if err != nil {
		return result, err
	}
	defer res.Body.Close()
	err = c.frames(ctx, res.Body, o.Stdout, o.Stderr, func(m Control) (done bool) {
		switch {
		case m.Progress != nil && o.Progress != nil:
			o.Progress(*m.Progress)
		case m.Created != "":
			result.Unit = m.Created
			if o.Created != nil {
				o.Created(m.Created)
			}
			return !r.Attach
		case m.Exit != nil:
			result.Exit = m.Exit
			return true
		}
		return false
	})
	return result, c.cutOff(ctx, err)
}

// Exec runs a process and returns its exit after all its output.
func (c *Client) Exec(ctx context.Context, r ExecRequest, stdout, stderr io.Writer) (Exit, error) {
	res, err := c.open(ctx, http.MethodPost, "/exec", nil, r)
	if err != nil {
		return Exit{}, err
	}
	defer res.Body.Close()
	var exit Exit
	err = c.frames(ctx, res.Body, stdout, stderr, func(m Control) bool {
		if m.Exit != nil {
			exit = *m.Exit
		}
		return m.Exit != nil
	})
	return exit, c.cutOff(ctx, err)
}

// cutOff is the error of a stream that had to end with an exit.
func (c *Client) cutOff(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) {
		return c.transportError(ctx, io.ErrUnexpectedEOF)
	}
	return err
}

// Logs writes a target's output as the bytes it was.
func (c *Client) Logs(ctx context.Context, r LogsRequest, stdout, stderr io.Writer) error {
	res, err := c.open(ctx, http.MethodGet, "/logs", logsQuery(r), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	err = c.frames(ctx, res.Body, stdout, stderr, func(Control) bool { return false })
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// LogLines yields a target's output as records.
func (c *Client) LogLines(ctx context.Context, r LogsRequest) iter.Seq2[LogLine, error] {
	q := logsQuery(r)
	q.Set("format", "json")
	return lines[LogLine](ctx, c, http.MethodGet, "/logs", q, nil)
}

// Events yields the stored events after since, then, with follow, new ones.
func (c *Client) Events(ctx context.Context, since uint64, follow bool) iter.Seq2[Event, error] {
	q := url.Values{}
	if since > 0 {
		q.Set("since", strconv.FormatUint(since, 10))
	}
	if follow {
		q.Set("follow", "1")
	}
	return lines[Event](ctx, c, http.MethodGet, "/events", q, nil)
}

// Pull pulls an image. When ctx ends meanwhile, the daemon goes on: Abort ends
// the operation that started has got the id of. Both functions may be nil.
func (c *Client) Pull(ctx context.Context, r PullRequest, started func(operation string), progress func(Progress)) (Image, error) {
	for m, err := range lines[PullMessage](ctx, c, http.MethodPost, "/images:pull", nil, r) {
		switch {
		case err != nil:
			return Image{}, err
		case m.Error != nil:
			return Image{}, m.Error
		case m.Image != nil:
			return *m.Image, nil
		case m.Operation != "" && started != nil:
			started(m.Operation)
		case m.Progress != nil && progress != nil:
			progress(*m.Progress)
		}
	}
	return Image{}, c.transportError(ctx, io.ErrUnexpectedEOF)
}

func logsQuery(r LogsRequest) url.Values {
	q := url.Values{"target": append([]string{r.Target}, r.More...)}
	if r.Follow {
		q.Set("follow", "1")
	}
	if r.Tail > 0 {
		q.Set("tail", strconv.Itoa(r.Tail))
	}
	if !r.Since.IsZero() {
		q.Set("since", r.Since.Format(time.RFC3339Nano))
	}
	if !r.Until.IsZero() {
		q.Set("until", r.Until.Format(time.RFC3339Nano))
	}
	if r.Previous {
		q.Set("previous", "1")
	}
	if len(r.After) > 0 {
		q["after"] = r.After
	}
	return q
}

// frames copies output until control says that it is done. A stream that ends
// before is an error: io.EOF between two frames, else a lost connection.
func (c *Client) frames(ctx context.Context, body io.Reader, stdout, stderr io.Writer, control func(Control) bool) error {
	in := bufio.NewReaderSize(body, 128<<10)
	var buf []byte
	for {
		typ, p, err := ReadFrame(in, buf)
		switch {
		case errors.Is(err, io.EOF) && ctx.Err() == nil:
			return io.EOF
		case err != nil:
			return c.transportError(ctx, err)
		}
		if cap(p) > cap(buf) {
			buf = p[:cap(p)]
		}
		switch typ {
		case FrameStdout:
			err = writeTo(stdout, p)
		case FrameStderr:
			err = writeTo(stderr, p)
		case FrameControl:
			var m Control
			if err = json.Unmarshal(p, &m); err == nil && m.Error != nil {
				return m.Error
			}
			if err == nil && control(m) {
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

func writeTo(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// lines makes a call and yields the lines of its answer.
func lines[T any](ctx context.Context, c *Client, method, path string, q url.Values, body any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		res, err := c.open(ctx, method, path, q, body)
		if err != nil {
			yield(zero, err)
			return
		}
		defer res.Body.Close()
		dec := json.NewDecoder(res.Body)
		for {
			var v T
			err := dec.Decode(&v)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(zero, c.transportError(ctx, err))
				return
			case !yield(v, nil):
				return
			}
		}
	}
}
