package runtime

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/wherry-run/wherry/runtime/internal/logfile"
)

func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	w, err := logfile.Open(path, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	at := time.Date(2026, 11, 3, 4, 5, 6, 7, time.UTC)
	for _, run := range []string{"web.1-aaaa", "web.1-bbbb"} {
		if err := w.StartRun(run, at); err != nil {
			t.Fatal(err)
		}
		if err := w.Write("stderr", at, []byte("one\ntwo")); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	close(done)
	for _, c := range []struct {
		o    LogOptions
		want string
	}{
		{LogOptions{}, "aaaa:one aaaa:two+ bbbb:one bbbb:two+ "},
		{LogOptions{Tail: 1}, "bbbb:two+ "},
		{LogOptions{Run: "web.1-aaaa"}, "aaaa:one aaaa:two+ "},
		{LogOptions{Since: at.Add(1)}, ""},
		{LogOptions{Follow: true, Done: done, Tail: 2}, "bbbb:one bbbb:two+ "},
	} {
		got := ""
		for l, err := range ReadLog(context.Background(), path, c.o) {
			if err != nil || !l.Time.Equal(at) || l.Stream != "stderr" {
				t.Errorf("%+v, %v", l, err)
			}
			got += fmt.Sprintf("%s:%s", l.Run[len("web.1-"):], l.Text)
			if l.Partial {
				got += "+"
			}
			got += " "
		}
		if got != c.want {
			t.Errorf("%+v: got %q", c.o, got)
		}
	}
}
