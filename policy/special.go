package policy

import "net/netip"

// metadata are the addresses at which clouds hand out credentials and
// configuration to whoever asks from inside. Those in link-local ranges are here
// for their name only.
var metadata = map[netip.Addr]bool{
	netip.MustParseAddr("169.254.169.254"):    true, // AWS, Azure, Google Cloud, Oracle and most others
	netip.MustParseAddr("169.254.170.2"):      true, // AWS ECS task credentials
	netip.MustParseAddr("169.254.170.23"):     true, // AWS EKS pod identity
	netip.MustParseAddr("fd00:ec2::254"):      true, // AWS
	netip.MustParseAddr("fd00:ec2::23"):       true, // AWS EKS pod identity
	netip.MustParseAddr("100.100.100.200"):    true, // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"):      true, // Azure WireServer: certificates and settings of extensions
	netip.MustParseAddr("192.0.0.192"):        true, // Oracle Cloud Classic
	netip.MustParseAddr("fd20:ce::254"):       true, // Google Cloud
	netip.MustParseAddr("fd00:c1::a9fe:a9fe"): true, // Oracle Cloud
	netip.MustParseAddr("fd00:42::42"):        true, // Scaleway
	netip.MustParseAddr("fe80::a9fe:a9fe"):    true, // OpenStack
}

// Special reports whether addr is on the deny floor: an address that no rule opens
// in passing, since it means the agent's own machine or link instead of the network
// that its owner had in mind. The kind is one of "loopback", "link-local",
// "unspecified", "multicast", "broadcast", "metadata" and "invalid" (the zero Addr).
//
// An IPv6 address that carries an IPv4 address is special when that one is:
// IPv4-mapped, -compatible and -translated addresses, NAT64 (64:ff9b::/96 and
// 64:ff9b:1::/48), 6to4, Teredo (server and client) and ISATAP. A NAT64 prefix of
// the network's own cannot be known here: deny it by a rule.
//
// Private (RFC 1918, fc00::/7) and shared (100.64.0.0/10) addresses are not
// special: they are what an agent is for.
func Special(addr netip.Addr) (kind string, special bool) {
	addr = addr.WithZone("").Unmap()
	if kind = specialKind(addr); kind != "" {
		return kind, true
	}
	inner, n := embedded(addr)
	for _, v4 := range inner[:n] {
		if kind = specialKind(v4); kind != "" {
			return kind, true
		}
	}
	return "", false
}

func specialKind(addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return "invalid"
	case metadata[addr]:
		return "metadata"
	case addr.IsLoopback():
		return "loopback"
	case addr.IsLinkLocalUnicast():
		return "link-local"
	case addr.IsMulticast():
		return "multicast"
	case addr.IsUnspecified(), inThisNetwork(addr):
		return "unspecified"
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "broadcast"
	}
	return ""
}

// inThisNetwork is 0.0.0.0/8 (RFC 1122 section 3.2.1.3), which some systems take
// for themselves.
func inThisNetwork(addr netip.Addr) bool { return addr.Is4() && addr.As4()[0] == 0 }

// maxEmbedded is the number of readings of an address in 64:ff9b:1::/48.
const maxEmbedded = 4

// embedded returns the IPv4 addresses that an unmapped IPv6 address may lead to.
func embedded(addr netip.Addr) (inner [maxEmbedded]netip.Addr, n int) {
	if !addr.Is6() {
		return inner, 0
	}
	b := addr.As16()
	add := func(v4 [4]byte) {
		inner[n] = netip.AddrFrom4(v4)
		n++
	}
	last := [4]byte(b[12:])
	switch {
	case zero(b[:12]): // compatible (RFC 4291 section 2.5.5.1)
		add(last)
	case zero(b[:8]) && b[8] == 0xff && b[9] == 0xff && b[10] == 0 && b[11] == 0: // translated (RFC 2765)
		add(last)
	case [4]byte(b[:4]) == [4]byte{0x00, 0x64, 0xff, 0x9b} && zero(b[4:12]): // NAT64 (RFC 6052)
		add(last)
	case [6]byte(b[:6]) == [6]byte{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}:
		// RFC 8215 leaves the length of the prefix to the network: read it at
		// every length of RFC 6052 section 2.2. The wrong readings hit the zeros
		// around the address, and 0.0.0.0/8 leads nowhere through a translator.
		for _, v4 := range [...][4]byte{{b[6], b[7], b[9], b[10]}, {b[7], b[9], b[10], b[11]}, {b[9], b[10], b[11], b[12]}, last} {
			if v4[0] != 0 {
				add(v4)
			}
		}
	case b[0] == 0x20 && b[1] == 0x02: // 6to4 (RFC 3056)
		add([4]byte(b[2:6]))
	case [4]byte(b[:4]) == [4]byte{0x20, 0x01, 0, 0}: // Teredo (RFC 4380): the client's address is inverted
		add([4]byte(b[4:8]))
		add([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	}
	// ISATAP (RFC 5214 section 6.1) is an interface identifier under any prefix.
	if b[8]&^0x03 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe && n < maxEmbedded {
		add(last)
	}
	return inner, n
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
