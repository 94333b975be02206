package network

import (
	"net/netip"
	"strings"
	"testing"
)

func TestHosts(t *testing.T) {
	const common = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
	if got := string(Hosts("web-1", netip.MustParseAddr("10.88.0.2"))); got != common+"10.88.0.2\tweb-1\n" {
		t.Errorf("bridge:\n%s", got)
	}
	if got := string(Hosts("web-1", netip.Addr{})); got != common+"127.0.1.1\tweb-1\n" {
		t.Errorf("none:\n%s", got)
	}
	if got := string(Hosts("", netip.Addr{})); got != common {
		t.Errorf("no name:\n%s", got)
	}
}

func TestResolvConf(t *testing.T) {
	given := []netip.Addr{netip.MustParseAddr("10.9.9.9")}
	const resolved = "# written by systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch stub.example\n"
	const uplink = "nameserver 192.0.2.53\nnameserver fe80::1%2\nsearch lan.example\n"
	for _, tc := range []struct {
		name, host, uplink string
		servers            []netip.Addr
		want               string
		fallback           bool
	}{
		{"as the host", "search a.example b.example\noptions ndots:2\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n", "", nil,
			"search a.example b.example; options ndots:2; nameserver 192.0.2.1; nameserver 192.0.2.2;", false},
		{"loopback is dropped", "nameserver 127.0.0.1\nnameserver 192.0.2.1 # second\n", uplink, nil, "nameserver 192.0.2.1;", false},
		{"IPv6 is dropped", "nameserver ::1\nnameserver 2001:db8::1\nnameserver 192.0.2.1\n", "", nil, "nameserver 192.0.2.1;", false},
		{"systemd-resolved", resolved, uplink, nil, "search lan.example; nameserver 192.0.2.53;", false},
		{"a local cache only", "search a.example\nnameserver 127.0.0.1\n", "", nil, "search a.example; nameserver 8.8.8.8; nameserver 8.8.4.4;", true},
		{"nothing at all", "", "", nil, "nameserver 8.8.8.8; nameserver 8.8.4.4;", true},
		{"nonsense", "nameserver\nnameserver here\nnameserver 0.0.0.0\nfoo bar\n", "", nil, "nameserver 8.8.8.8; nameserver 8.8.4.4;", true},
		{"given ones", resolved, uplink, given, "options edns0 trust-ad; search stub.example; nameserver 10.9.9.9;", false},
		{"no last newline", "nameserver 192.0.2.1", "", nil, "nameserver 192.0.2.1;", false},
	} {
		conf, fallback := ResolvConf([]byte(tc.host), []byte(tc.uplink), tc.servers)
		got := strings.TrimSpace(strings.ReplaceAll(string(conf), "\n", "; "))
		if got != tc.want || fallback != tc.fallback {
			t.Errorf("%s: got %q, %t; want %q, %t", tc.name, got, fallback, tc.want, tc.fallback)
		}
	}
	if _, _, err := BridgeResolvConf(nil); err != nil {
		t.Error(err)
	}
}
