package network

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
)

var localhost = netip.MustParseAddr("127.0.0.1")

func at(ip string, p Port) Port {
	p.HostIP = netip.MustParseAddr(ip)
	return p
}

func leaseOf(run string, addr string, ports ...Port) Lease {
	return Lease{Run: run, Unit: instanceOf(run), Address: netip.PrefixFrom(netip.MustParseAddr(addr), 16), Device: "x", Ports: ports}
}

func TestPortConflicts(t *testing.T) {
	udp := Port{HostPort: 80, Port: 80, Protocol: "udp"}
	for _, tc := range []struct {
		name  string
		taken Port
		ports []Port
		want  string // "" is no conflict
	}{
		{"another port", tcp(81, 80, "db"), []Port{tcp(80, 80, "web")}, ""},
		{"another protocol", udp, []Port{tcp(80, 80, "web")}, ""},
		{"a replica", tcp(80, 80, "web"), []Port{tcp(80, 80, "web")}, ""},
		{"a replica of another revision", tcp(80, 8080, "web"), []Port{tcp(80, 80, "web")}, ""},
		{"another unit", tcp(80, 80, "db"), []Port{tcp(80, 80, "web")}, "port 80/tcp: address already in use (by unit old)"},
		{"nobody shares with nobody", tcp(80, 80, ""), []Port{tcp(80, 80, "")}, "port 80/tcp: address already in use (by unit old)"},
		{"all addresses over one", at("127.0.0.1", tcp(80, 80, "db")), []Port{tcp(80, 80, "web")}, "port 80/tcp: address already in use (by unit old)"},
		{"one address over all", tcp(80, 80, "web"), []Port{at("127.0.0.1", tcp(80, 80, "web"))}, "port 127.0.0.1:80/tcp: address already in use (by unit old)"},
		{"two addresses", at("127.0.0.2", tcp(80, 80, "db")), []Port{at("127.0.0.1", tcp(80, 80, "web"))}, ""},
		{"0.0.0.0 is all addresses", at("0.0.0.0", tcp(80, 80, "web")), []Port{at("0.0.0.0", tcp(80, 80, "web"))}, ""},
		{"twice in one run", udp, []Port{tcp(80, 80, "web"), tcp(80, 81, "web")}, "port 80/tcp: address already in use (published twice by unit web)"},
		{"no container port", udp, []Port{tcp(80, 0, "web")}, "port 80/tcp: the container port is missing"},
		{"unknown protocol", udp, []Port{{HostPort: 80, Port: 80, Protocol: "sctp"}}, `port 80: protocol "sctp": want tcp or udp`},
		{"IPv6", udp, []Port{at("::1", tcp(80, 80, ""))}, "port ::1:80/tcp: IPv6 is not supported yet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			taken, err := cleanPorts([]Port{tc.taken})
			if err != nil {
				t.Fatal(err)
			}
			_, err = claimPorts(Endpoint{Run: "web.1-a", Unit: "web", Ports: tc.ports},
				[]Lease{leaseOf("old-1", "10.88.0.2", taken...)}, func(socket) error { return nil })
			if got := fmt.Sprint(err); tc.want == "" && err != nil || tc.want != "" && got != tc.want {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestChoosePort(t *testing.T) {
	claimed := map[uint16]bool{}
	claim := func(s socket) error {
		if claimed[s.port] {
			return ErrPortTaken
		}
		return nil
	}
	choose := func(run string, leases []Lease, ports ...Port) []Port {
		t.Helper()
		got, err := claimPorts(Endpoint{Run: run, Unit: instanceOf(run), Ports: ports}, leases, claim)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := choose("web.1-a", nil, tcp(0, 80, "web"))[0].HostPort
	if first < firstDynamic {
		t.Errorf("port %d is not of the dynamic range", first)
	}
	if again := choose("web.1-b", nil, tcp(0, 80, "web"))[0].HostPort; again != first {
		t.Errorf("the next run has %d, the first had %d", again, first)
	}
	claimed[first] = true // by a process of the host
	second := choose("web.1-c", nil, tcp(0, 80, "web"))[0].HostPort
	if second == first {
		t.Error("chose a port that is taken")
	}
	// A replica goes where the others are, even if the first choice is free again.
	claimed[first] = false
	leases := []Lease{leaseOf("web.1-c", "10.88.0.2", tcp(second, 80, "web"))}
	if got := choose("web.2-a", leases, tcp(0, 80, "web"))[0].HostPort; got != second {
		t.Errorf("the replica has %d, the first %d", got, second)
	}
	// One that was asked for by number is not handed out.
	two := choose("web.1-d", nil, tcp(0, 80, "web"), tcp(first, 80, "web"))
	if two[0].HostPort == first {
		t.Error("chose the port that the run itself asks for")
	}
	if _, err := claimPorts(Endpoint{Run: "x-1", Ports: []Port{tcp(0, 80, "")}}, nil, func(socket) error { return ErrPortTaken }); !errors.Is(err, ErrPortTaken) {
		t.Errorf("nothing free: %v", err)
	}
}

func TestInodesAt(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 103 1 0 100 0 0 10 0
   3: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 104 1 0 100 0 0 10 0
   4: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 105 1 0 100 0 0 10 0
   5: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 106 1 0 100 0 0 10 0
   6: garbage
`
	got := fmt.Sprint(inodesAt(table, socket{localhost, "tcp", 8080}))
	if want := "[101 102 105]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
