// Package network answers one question: how does a run's network namespace
// get an address, a way out, and ports that the world can reach?
//
// It gives each daemon a bridge of its own, each run a veth pair with a leased IPv4
// address on it, and writes one nftables table. All of it is done by netlink in this
// process: no ip, nft or iptables program is needed, and no process stands between
// a client and a container. It also makes the two files that name resolution
// needs inside (Hosts, ResolvConf).
//
// It does not make network namespaces (the keeper does), decide when a run
// attaches or leaves (the supervisor does), filter what containers may reach
// outside, resolve names of units, speak IPv6, or open a host firewall: a foreign table that drops what we
// forward is found and reported with its remedy.
//
// Read first: Manager (manager.go), Lease, and buildRuleset (ruleset.go).
//
// # Invariants
//
//   - Nothing is made on the host before the first Attach, or a Repair with live runs.
//   - A lease is on disk before anything is made for it, and goes last: whatever
//     a crash leaves has a name. Attach's undo, Detach and Repair are the same code.
//   - The table follows from bridge, subnet and leases alone. It is written in
//     one transaction, so no packet meets half of it, and only if it differs; established
//     connections belong to conntrack and are not touched.
//   - A device that is not ours is left alone: the bridge's alias says whose it
//     is, and nothing under its name is touched if that is somebody else.
//   - The kernel is asked, not remembered. What is remembered of nftables is
//     tied to the generation number that every change by anybody raises.
//
// # On disk
//
// Options.Dir, on tmpfs, as a reboot ends runs and leases together:
//
//	subnet            the chosen subnet
//	leases/RUN.json   a Lease
//
// A subnet is chosen under a lock of the host, /run/wherry-network.lock, which lasts until
// the bridge has its address: of daemons that come up at once, each sees the others'.
//
// # Addresses and names
//
// The gateway is the subnet's first address, on the bridge. A lease's address
// is the hash of the instance (web.1 of the run web.1-7f3k), or the next free one. The host's
// side of a pair is named after bridge and address (v203944-e099), the hardware addresses
// follow from the IPv4 address, the MTU is that of the device with the default route.
// If Options.Subnet is zero, the first of DefaultSubnets that no route or address of the host
// overlaps is taken. A changed Options.Subnet takes effect when no run is attached.
//
// After Attach the kernel still takes some milliseconds until the new link
// carries packets; a packet sent earlier is lost and repeated by TCP.
//
// # The table
//
// `nft list table ip wherry0` shows it with a comment at every rule. It can be saved
// and loaded by nft.
//
//	from the wire, from containers                     from processes of the host
//	            │                                                  │
//	    guard   (prerouting, raw)                                  │
//	            │  not lo, to or from 127/8: drop                  │
//	    incoming (prerouting, dstnat)                      local   (output, dstnat)
//	            │  to an address of the host ──► published ◄───────┤
//	            │                                │                 │
//	            │       by_address_N, by_port_N: container address and port
//	            │                                                  │
//	     (routing decision)                                        │
//	            │                                                  │
//	    forward (forward, filter)                                  │
//	            │  bridge to bridge: accept                        │
//	            │  into the bridge: answers, published: accept     │
//	            │  into the bridge: drop                           │
//	            └────────────────────┬─────────────────────────────┘
//	                         outgoing (postrouting, srcnat)
//	                                 │  subnet, not to the bridge or lo: masquerade
//	                                 │  127/8 into the bridge: masquerade
//	                                 │  subnet into the bridge, translated: masquerade
//
// What each is for:
//
//   - guard. Publishing on 127.0.0.1 needs route_localnet on the bridge, and with it the
//     kernel no longer drops 127/8 from outside by itself (RFC 1122, 3.2.1.3). A
//     neighbour, or a container with CAP_NET_RAW, could then talk to what the host serves on its
//     loopback (CVE-2020-8558). The rule stands before connection tracking, where answers to the host's own
//     127.0.0.1 still carry the gateway's address.
//   - incoming, local. Only what is addressed to the host is looked up, from
//     outside and from the host itself, 127.0.0.1 included.
//   - published. One rule and one map for each number of choices that are left.
//     A port with three replicas is asked for in by_port_3 with odds of 1 in 3, then in by_port_2
//     with 1 in 2, then in by_port_1: each replica has a third. by_address_N is the same for
//     ports published on one address. New connections are spread; those that exist stay.
//   - forward. A container is reached by its published ports, not by its
//     address: a host that forwards would carry a neighbour's packets to it. What leaves the
//     bridge is not restricted, as in Docker, and a container reaches the host's own services.
//   - outgoing. The first rule is the way out. The second: a container could not answer
//     127.0.0.1. The third, hairpin: a container that calls another by the host's address must get
//     the answer through the host, or it would come from an address that it never called.
//
// # Ports
//
// The leases say who publishes what; the same address, protocol and port twice
// is ErrPortTaken unless both share it by Port.Share. Against other processes a bound socket is
// held for each published port (reserve.go). It cannot be seen in the table
// of listeners, and while no daemon runs it is not held: packets still go to the containers.
// Port 0 is a port from 49152 on that follows from unit and container port, the next one if that is taken, and the
// one that replicas have already.
//
// Conntrack keeps a UDP flow's translation for as long as it is used, so flows of UDP ports are removed
// when they are published and when they go (flows.go).
//
// # Sysctls
//
//	net.ipv4.ip_forward                      1: packets come in by any device and leave by another. It is the
//	                                         host's switch and not ours alone: a host that did not route before
//	                                         now does, also between its other networks. It is set if it is 0,
//	                                         logged then, and never set back: others may have come to rely on it.
//	net.ipv4.conf.BRIDGE.forwarding          1
//	net.ipv4.conf.BRIDGE.route_localnet      1: see guard
//	net.ipv6.conf.BRIDGE.disable_ipv6        1, as for each veth device: link-local IPv6 would lead around
//	                                         a table that knows IPv4
//	net.ipv6.conf.eth0.disable_ipv6          1, in the container
//
// rp_filter stays as it is: answers come in where their routes point, so the strict mode is no hindrance.
//
// # Other firewalls
//
// In netfilter an accept ends one table's say and a drop ends the packet. So
// Attach looks for base chains of others in the forward path whose policy is to drop (Docker's and
// ufw's iptables, nftables, legacy iptables) and fails with ErrForeignDrop unless one of
// their rules accepts the bridge (foreignChain.lets says how that is read). A last rule that drops or rejects all
// stops nothing, as jumps before it may well let us pass; Diagnose reports it. The input path is nobody's worry: what is published has another
// destination before it is decided where a packet goes, so a closed INPUT keeps no port from anybody.
package network
