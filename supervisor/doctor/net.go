package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/network"
)

// checkNetKernel makes all that a container's network needs where nobody sees it.
func checkNetKernel(_ context.Context, e *exam) finding {
	err := e.p.nftables()
	switch {
	case err == nil:
		return fine("bridge, pairs of devices and an nftables table with published ports can be made")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS):
		return failed("not permitted: "+err.Error(), "run the daemon as root with CAP_NET_ADMIN and a writable /proc/sys; in a container, run that with --privileged")
	case errors.Is(err, unix.ENOSPC):
		return failed(err.Error()+": no more network namespaces", e.h.setSysctl("user.max_net_namespaces", "63556"))
	}
	return failed("the kernel lacks what networks of containers need: "+err.Error(),
		"for m in bridge veth nf_tables nft_chain_nat nft_nat nft_masq nft_fib_ipv4 nft_ct nft_numgen; do modprobe $m; done, and their names into /etc/modules-load.d/wherry.conf; network: host does without")
}

// checkFirewall looks for others that drop what goes to and from containers: an
// accept in our table does not override that.
func checkFirewall(_ context.Context, e *exam) finding {
	d, err := e.network()
	if err != nil {
		return warning("the tables of others cannot be read: "+err.Error(), "nft list ruleset; iptables-legacy-save")
	}
	if len(d.Dropped) > 0 {
		var chains, remedies []string
		for _, o := range d.Dropped {
			chains, remedies = append(chains, o.Chain), append(remedies, o.Remedy)
		}
		return failed(strings.Join(chains, " and ")+": drops what containers send, units with a network of their own do not start", e.kept(strings.Join(remedies, " && ")))
	}
	if d.Firewalld && !d.Zoned {
		return warning(fmt.Sprintf("firewalld has %s in no zone: it may reject what goes to and from containers", e.o.Bridge),
			fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload", e.o.Bridge))
	}
	if len(d.Refused) > 0 {
		var chains, remedies []string
		for _, o := range d.Refused {
			chains, remedies = append(chains, o.Chain), append(remedies, o.Remedy)
		}
		return warning(strings.Join(chains, " and ")+": its last rule refuses what no other lets pass: published ports may not be reached, and containers reach nothing", e.kept(strings.Join(remedies, " && ")))
	}
	text := "no other table drops what goes through " + e.o.Bridge
	if d.Firewalld {
		text += "; firewalld has it in a zone"
	}
	return fine(text)
}

// kept adds how rules come back after a reboot, which commands alone do not.
func (e *exam) kept(commands string) string {
	switch {
	case strings.HasPrefix(commands, "ufw "):
		return commands // it keeps its rules itself
	case strings.HasPrefix(commands, "nft "):
		return commands + "; the same rules in /etc/nftables.conf stay"
	}
	return commands + "; " + e.h.choose("apt install iptables-persistent && netfilter-persistent save", "dnf install iptables-services && iptables-save >/etc/sysconfig/iptables") + " keeps them"
}

func checkForwarding(_ context.Context, e *exam) finding {
	const key = "net.ipv4.ip_forward"
	on := e.h.read("/proc/sys/net/ipv4/ip_forward")
	policy, found := e.h.sysctlFile(key)
	switch {
	case on == "":
		return failed("/proc/sys/net/ipv4/ip_forward cannot be read", "boot a kernel with IPv4, and mount /proc")
	case on == "0" && e.bridged():
		return failed(key+" is 0: containers reach nothing but this host, and nobody their ports", e.h.setSysctl(key, "1"))
	case found && policy.value == "0":
		return warning(fmt.Sprintf("%s is %s, and %s:%d sets it to 0 whenever settings are loaded: containers are cut off then", key, on, policy.file, policy.line), e.h.setSysctl(key, "1"))
	case on == "0":
		return fine(key + " is 0; the first container on a bridge switches it on")
	}
	return fine(key + " is " + on)
}

func checkBridge(_ context.Context, e *exam) finding {
	d, err := e.network()
	if err != nil {
		return warning("devices cannot be read: "+err.Error(), "ip -d link")
	}
	switch {
	case d.Bridge != nil:
		return failed(d.Bridge.Error(), "ip link del "+e.o.Bridge+", if nobody needs it; or "+e.setting("network: {bridge: wherry1}"))
	case d.SubnetErr != nil:
		return failed(d.SubnetErr.Error(), "choose one that nothing uses: "+e.setting("network: {subnet: 10.77.0.0/16}"))
	case d.Exists:
		return fine(fmt.Sprintf("%s, %s", e.o.Bridge, d.Subnet))
	}
	return fine(fmt.Sprintf("%s will be made with the first container, %s is free", e.o.Bridge, d.Subnet))
}

// checkDNS: a name server on the host's loopback does not serve containers.
func checkDNS(_ context.Context, e *exam) finding {
	conf := e.h.raw("/etc/resolv.conf")
	_, fallback := network.ResolvConf([]byte(conf), []byte(e.h.raw("/run/systemd/resolve/resolv.conf")), nil)
	if fallback {
		return warning("/etc/resolv.conf names no server that containers could reach: they ask 8.8.8.8 and 8.8.4.4",
			"echo 'nameserver ADDRESS' >>/etc/resolv.conf, with the address of one that is not on loopback")
	}
	return fine("containers get the host's name servers")
}
