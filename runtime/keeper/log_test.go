package keeper

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

func TestPriorities(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(newPriorityHandler(&b))
	log.With("unit", "web").Warn("it is late", "err", "clock")
	log.Info("again")
	log.Error("lost")
	log.Debug("nobody asked")
	if want := "<4>msg=\"it is late\" unit=web err=clock\n<6>msg=again\n<3>msg=lost\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	f := journalFormatter{&logrus.TextFormatter{DisableTimestamp: true, DisableColors: true}}
	if got, err := f.Format(&logrus.Entry{Logger: logrus.New(), Level: logrus.WarnLevel, Message: "x"}); err != nil || !bytes.HasPrefix(got, []byte("<4>level=warning msg=x")) {
		t.Errorf("%q %v", got, err)
	}
}

func TestIsJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	if !isJournal(f, own) || isJournal(f, "") || isJournal(f, own+"1") {
		t.Error("the stream is known by device and inode")
	}
}
