package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// files writes what becomes /etc/hosts, /etc/hostname and /etc/resolv.conf. An
// image has none of its own that would be right.
func (st *start) files(context.Context) error {
	dir, name := st.s.paths.run(st.rec.Run), hostname(st.rec.Instance)
	var address netip.Addr
	if st.lease != nil {
		address = st.lease.Address.Addr()
	}
	hosts := hostsFile(name, address)
	if st.rec.Revision.Definition.Network == "host" {
		// Who shares the host's network also wants to know its neighbours.
		if own, err := os.ReadFile("/etc/hosts"); err == nil {
			hosts = own
		}
	}
	resolv, err := resolvConf(st.rec.Revision.Definition.Network)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{"hosts", hosts}, {"hostname", []byte(name + "\n")}, {"resolv.conf", resolv}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// hostname is the instance's name as one label: a dot would make it a domain.
func hostname(instance string) string { return strings.ReplaceAll(instance, ".", "-") }

func hostsFile(name string, address netip.Addr) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	own := "127.0.1.1"
	if address.IsValid() {
		own = address.String()
	}
	b.WriteString(own + "\t" + name + "\n")
	return b.Bytes()
}

// resolvConf is the host's, without name servers that only the host itself can
// reach.
func resolvConf(network string) ([]byte, error) {
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if network == "host" {
		return host, nil
	}
	filtered, servers := withoutLoopback(host)
	if servers > 0 {
		return filtered, nil
	}
	// systemd-resolved listens on 127.0.0.53 and keeps the real ones here.
	if real, err := os.ReadFile("/run/systemd/resolve/resolv.conf"); err == nil {
		filtered, _ = withoutLoopback(real)
	}
	return filtered, nil
}

// withoutLoopback drops name servers on the loopback device and counts the others.
func withoutLoopback(conf []byte) ([]byte, int) {
	var out bytes.Buffer
	servers := 0
	for lines := bufio.NewScanner(bytes.NewReader(conf)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) >= 2 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err == nil && a.IsLoopback() {
				continue
			}
			servers++
		}
		out.WriteString(lines.Text() + "\n")
	}
	return out.Bytes(), servers
}
