package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-run/wherry/integration/harness"
)

// TestServices is the main job: two real services from a real registry are
// applied, answer, and are healed after a kill -9 of their main process.
func TestServices(t *testing.T) {
	r := registry(t)
	h := harness.StartHost(t)
	web, db := freePort(t), freePort(t)
	h.Apply("db", fmt.Sprintf(`
image: %s
ports: ["127.0.0.1:%d:6379"]
volumes: ["db:/data"]
restart: always
`, r.Ref("redis"), db))
	h.Apply("web", fmt.Sprintf(`
image: %s
ports: ["%d:80"]
depends_on: [db]
resources: {limits: {memory: 64MiB, pids: 64}}
restart: always
`, r.Ref("nginx"), web))

	page := fmt.Sprintf("http://127.0.0.1:%d/", web)
	dbAddr := fmt.Sprintf("127.0.0.1:%d", db)
	ping := func() {
		t.Helper()
		harness.Eventually(t, 30*time.Second, "redis answers PONG", func() bool {
			s, err := redis(dbAddr, "PING")
			return err == nil && s == "+PONG"
		})
	}
	answers(t, page, "hello from nginx")
	ping()
	if s, err := redis(dbAddr, "SET key survives"); err != nil || s != "+OK" {
		t.Fatalf("SET: %q %v", s, err)
	}

	for _, name := range []string{"web", "db"} {
		before := h.Running(name, 1)
		kill9(t, h.MainPid(before))
		harness.Eventually(t, 30*time.Second, name+" is healed", func() bool {
			u := h.Unit(name)
			return u.State == "running" && u.Instances[0].Run != before.Run
		})
		u := h.Unit(name)
		if u.Restarts != 1 {
			t.Errorf("%s: %d restarts, want 1", name, u.Restarts)
		}
	}
	answers(t, page, "hello from nginx")
	ping()
	harness.Eventually(t, 10*time.Second, "the volume kept the data", func() bool {
		s, err := redis(dbAddr, "STRLEN key")
		return err == nil && s == ":8"
	})
	harness.Eventually(t, 30*time.Second, "the log of web has a request", func() bool {
		return strings.Contains(h.OK("logs", "web"), "GET / HTTP/1.1")
	})
}

// getPage fetches a page, or returns the error.
func getPage(url string) (string, error) {
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// answers waits until the page has text.
func answers(t *testing.T, url, text string) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, url+" answers "+text, func() bool {
		b, err := getPage(url)
		return err == nil && strings.Contains(b, text)
	})
}

// redis sends one inline command and returns the first line of the answer.
func redis(addr, command string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 3*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	fmt.Fprintf(c, "%s\r\n", command)
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func kill9(t testing.TB, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("pid %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
