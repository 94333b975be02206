package wire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/cgroup"
)

var update = flag.Bool("update", false, "write the golden files of the newest version")

// pair is two connected sockets.
func pair(t testing.TB) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return conns[0], conns[1]
}

func TestSendReceive(t *testing.T) {
	a, b := pair(t)
	from, to := NewConn(a), NewConn(b)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	large := bytes.Repeat([]byte("x"), 1<<20)
	go func() {
		from.Send(&Message{Version: 1, Type: List, ID: 7})
		from.Send(&Message{Version: 1, Type: Exec, ID: 8, Body: []byte(`{}`), Files: []*os.File{w, w}})
		from.Send(&Message{Version: 1, Type: Reply, ID: 9, Body: large})
		w.Close()
		from.Close()
	}()
	m, err := to.Receive()
	if err != nil || m.Type != List || m.ID != 7 || len(m.Body) != 0 || len(m.Files) != 0 {
		t.Fatalf("first: %+v, %v", m, err)
	}
	m, err = to.Receive()
	if err != nil || m.Type != Exec || len(m.Files) != 2 {
		t.Fatalf("second: %+v, %v", m, err)
	}
	m.Files[1].WriteString("through")
	if flags, _ := unix.FcntlInt(m.Files[0].Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("a received descriptor is not close-on-exec")
	}
	m.CloseFiles()
	if m, err = to.Receive(); err != nil || !bytes.Equal(m.Body, large) {
		t.Fatalf("third: %v", err)
	}
	if _, err = to.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want EOF", err)
	}
	if text, _ := io.ReadAll(r); string(text) != "through" {
		t.Errorf("the descriptor gave %q", text)
	}
}

// TestEnded: the end of a peer is known before all that it has sent is received.
func TestEnded(t *testing.T) {
	a, b := pair(t)
	from, to := NewConn(a), NewConn(b)
	if err := from.Send(&Message{Version: 1, Type: List, ID: 7}); err != nil {
		t.Fatal(err)
	}
	if to.Ended() {
		t.Error("ended before its end")
	}
	from.Close()
	if !to.Ended() || !from.Ended() {
		t.Error("not ended")
	}
	if m, err := to.Receive(); err != nil || m.ID != 7 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestReceiveRefuses(t *testing.T) {
	good, err := (&Message{Version: 1, Type: List, Body: []byte("{}")}).encode()
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	tests := []struct {
		name string
		raw  []byte
		want error
	}{
		{"magic", change(0, 'X'), ErrProtocol},
		{"version 0", change(4, 0, 0), ErrProtocol},
		{"huge body", change(12, 0xff), ErrProtocol},
		{"many descriptors", change(16, 0xff), ErrProtocol},
		{"missing descriptor", change(16, 0, 1), ErrProtocol},
		{"half a header", good[:9], io.ErrUnexpectedEOF},
		{"half a body", good[:len(good)-1], io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pair(t)
			a.Write(tt.raw)
			a.Close()
			if m, err := NewConn(b).Receive(); !errors.Is(err, tt.want) {
				t.Errorf("%+v, %v; want %v", m, err, tt.want)
			}
		})
	}
}

func TestSendRefuses(t *testing.T) {
	a, _ := pair(t)
	c := NewConn(a)
	if err := c.Send(&Message{Type: List, Body: make([]byte, MaxBody+1)}); !errors.Is(err, ErrProtocol) {
		t.Errorf("huge body: %v", err)
	}
	if err := c.Send(&Message{Type: List, Files: make([]*os.File, MaxFds+1)}); !errors.Is(err, ErrProtocol) {
		t.Errorf("many descriptors: %v", err)
	}
}

func TestNegotiate(t *testing.T) {
	tests := []struct {
		ours, theirs Versions
		want         uint16
	}{
		{Versions{1, 1}, Versions{1, 1}, 1},
		{Versions{1, 2}, Versions{1, 1}, 1},
		{Versions{2, 3}, Versions{1, 2}, 2},
		{Versions{1, 2}, Versions{2, 3}, 2},
		{Versions{3, 4}, Versions{1, 2}, 0},
		{Versions{1, 1}, Versions{}, 0},
	}
	for _, tt := range tests {
		got, err := Negotiate(tt.ours, tt.theirs)
		if got != tt.want || (err == nil) != (tt.want != 0) {
			t.Errorf("Negotiate(%v, %v) = %d, %v, want %d", tt.ours, tt.theirs, got, err, tt.want)
		}
	}
}

// TestSpeak: once a version is agreed on, messages carry it, and what it does
// not know is refused by name.
func TestSpeak(t *testing.T) {
	a, b := pair(t)
	from, to := NewConn(a), NewConn(b)
	if from.Version() != MinVersion {
		t.Errorf("before the hello: version %d", from.Version())
	}
	for _, v := range []uint16{0, 1, 2} {
		from.Speak(v)
		m, err := New(List, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := from.Send(m); err != nil {
			t.Fatal(err)
		}
		if m, err = to.Receive(); err != nil || m.Version != cmp.Or(v, Version) {
			t.Errorf("version %d came as %+v, %v", v, m, err)
		}
	}
	for typ, need := range map[Type]uint16{Hello: 1, Cancel: 1, MakeNamespaces: 2, AwaitExec: 2, Reply: 1, Error: 1} {
		if got := typ.Since(); got != need {
			t.Errorf("type %d is known since %d, want %d", typ, got, need)
		}
	}
	err := Check(GiveBack, 1)
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "needs keeper protocol 2") {
		t.Errorf("error = %v", err)
	}
	if err := Check(GiveBack, 2); err != nil {
		t.Error(err)
	}
}

func TestCheckPeer(t *testing.T) {
	a, _ := pair(t)
	if err := CheckPeer(a); err != nil {
		t.Errorf("our own user is refused: %v", err)
	}
}

// goldens are one message of each kind that has a body, by the version that knew it first. The files of older
// versions stay, and must decode to the same values.
var goldens = []struct {
	name string
	typ  Type
	body any
}{
	{"hello", Hello, &HelloRequest{Versions: Versions{1, 2}}},
	{"hello-reply", Reply, &HelloReply{Version: 1, Pid: 42, Instance: "K7", Build: "v1"}},
	{"start", Start, &StartRequest{Config: json.RawMessage(`{"run":"web.1-7f3k"}`), NetNS: true}},
	{"get", Get, &ContainerRequest{ID: "web.1-7f3k.app"}},
	{"signal", Signal, &SignalRequest{ID: "web.1-7f3k.app", Signal: "SIGHUP"}},
	{"exec", Exec, &ExecRequest{ID: "web.1-7f3k.app", Args: []string{"sh", "-c", "true"}, Env: []string{"A=b"}, Cwd: "/", User: "web", Stdio: 7}},
	{"namespaces", Namespaces, &NamespacesRequest{Run: "web.1-7f3k"}},
	{"upgrade", Upgrade, &UpgradeRequest{Binary: "/usr/lib/wherry/wherry-keeper"}},
	{"error", Error, &ErrorReply{Code: Command, Step: "process", Message: "exec \"x\": command not found"}},
	{"exec-console", Exec, &ExecRequest{ID: "web.1-7f3k.app", Args: []string{"sh"}, Console: true, Rows: 24, Columns: 80, Privileged: true, Key: "K7"}},
	{"release-namespaces", ReleaseNamespaces, &RunRequest{Run: "web.1-7f3k"}},
	{"update", Update, &UpdateRequest{ID: "web.1-7f3k.app", Limits: cgroup.Limits{Memory: 64 << 20}}},
	{"kept", Kept, &KeptBody{Name: "pidfd/web.1-7f3k.app"}},
	{"dropped", Kept, &KeptBody{Name: "pidfd/web.1-7f3k.app", Dropped: true}},
	{"give-back", GiveBack, &GiveBackRequest{Names: []string{"pidfd/web.1-7f3k.app"}}},
	{"await-exec", AwaitExec, &AwaitExecRequest{ID: "web.1-7f3k.app", Key: "K7"}},
	{"examine", Examine, &ExamineRequest{Collect: true, Stacks: true}},
	{"vitals", Reply, &Vitals{Pid: 7, Goroutines: 12, Heap: 1 << 20, Stacks: "goroutine 1"}},
}

func TestGolden(t *testing.T) {
	for _, tt := range goldens {
		t.Run(tt.name, func(t *testing.T) {
			m, err := New(tt.typ, 3, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := m.encode()
			if err != nil {
				t.Fatal(err)
			}
			newest := filepath.Join("testdata", fmt.Sprintf("v%d", Version), tt.name+".msg")
			if *update {
				if err := os.WriteFile(newest, raw, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(newest)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(raw, want) {
				t.Errorf("encodes to\n%q, want\n%q", raw, want)
			}
			old, _ := filepath.Glob(filepath.Join("testdata", "v*", tt.name+".msg"))
			for _, file := range old {
				checkDecodes(t, file, tt.body)
			}
		})
	}
}

func checkDecodes(t *testing.T, file string, want any) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	a, b := pair(t)
	go a.Write(raw)
	m, err := NewConn(b).Receive()
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	got := reflect.New(reflect.TypeOf(want).Elem()).Interface()
	if err := m.Decode(got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, %v, want %+v", file, got, err, want)
	}
}

func FuzzReceive(f *testing.F) {
	files, _ := filepath.Glob("testdata/v*/*.msg")
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) >= headerSize && binary.BigEndian.Uint32(raw[12:]) > 1<<20 {
			t.Skip("would only take memory")
		}
		a, b := pair(t)
		go func() {
			a.Write(raw)
			a.Close()
		}()
		c := NewConn(b)
		for {
			m, err := c.Receive()
			if err != nil {
				return
			}
			if len(m.Files) != 0 {
				t.Fatal("descriptors out of nothing")
			}
			again, err := m.encode()
			if err != nil {
				t.Fatalf("what was received cannot be sent: %v", err)
			}
			if len(again) > len(raw) {
				t.Fatalf("received more than was sent: %q", again)
			}
		}
	})
}
