package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// Hosts is the content of a container's /etc/hosts. Without an address
// (network none) the host name is that of the loopback.
func Hosts(hostname string, address netip.Addr) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n")
	b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	b.WriteString("fe00::\tip6-localnet\n")
	b.WriteString("ff00::\tip6-mcastprefix\n")
	b.WriteString("ff02::1\tip6-allnodes\n")
	b.WriteString("ff02::2\tip6-allrouters\n")
	if hostname == "" {
		return []byte(b.String())
	}
	own := "127.0.1.1" // as Debian does for a host without a fixed address
	if address.IsValid() {
		own = address.String()
	}
	fmt.Fprintf(&b, "%s\t%s\n", own, hostname)
	return []byte(b.String())
}
