package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
)

// generator makes targets as somebody would who looks for a way past the policy.
type generator struct {
	*rand.Rand
	names []string
}

func (g generator) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g generator) target() (service, host, port string) {
	service = g.pick("tcp", "tcp", "tcp", "http", "udp", "icmp")
	port = g.pick("9000", "9000", "80", "443", "5432", "53", "25", "22", "8000", "8099", "8100", "9100")
	if g.IntN(12) == 0 {
		port = hostilePorts[g.IntN(len(hostilePorts))]
	}
	switch g.IntN(10) {
	case 0:
		host = g.name()
	case 1:
		host = hostileHosts[g.IntN(len(hostileHosts))]
	case 2, 3, 4, 5:
		host = g.v4()
	default:
		host = g.v6()
	}
	for g.IntN(5) == 0 {
		host = g.mutate(host)
	}
	return service, host, port
}

func (g generator) name() string {
	name := g.names[g.IntN(len(g.names))]
	switch g.IntN(6) {
	case 0:
		name = strings.ToUpper(name)
	case 1:
		name += "."
	case 2:
		name = g.pick("a", "_x", "vault", "xn--p1ai", "127.0.0.1", "*") + "." + name
	}
	return name
}

// v4 is an address near an edge of the policy, in one of the spellings that some reader
// takes for an address.
func (g generator) v4() string {
	a := [4]byte{byte(g.IntN(256)), byte(g.IntN(256)), byte(g.IntN(256)), byte(g.IntN(256))}
	if g.IntN(4) > 0 {
		a = netip.MustParseAddr(g.pick(append([]string{"10.20.0.1", "10.20.66.1", "10.66.0.1", "10.30.1.1", "10.40.0.1", "10.20.0.7"}, randomV4...)...)).As4()
	}
	n := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	switch g.IntN(12) {
	case 0:
		return strconv.FormatUint(uint64(n), 10)
	case 1:
		return "0x" + strconv.FormatUint(uint64(n), 16)
	case 2:
		return "0" + strconv.FormatUint(uint64(n), 8)
	case 3:
		return fmt.Sprintf("%d.%d", a[0], n&0xffffff)
	case 4:
		return fmt.Sprintf("%d.%d.%d", a[0], a[1], n&0xffff)
	case 5:
		return fmt.Sprintf("0%o.%d.%d.%d", a[0], a[1], a[2], a[3])
	case 6:
		return fmt.Sprintf("0x%x.%d.0%o.%d", a[0], a[1], a[2], a[3])
	case 7:
		return fmt.Sprintf("%03d.%03d.%03d.%03d", a[0], a[1], a[2], a[3])
	case 8:
		return netip.AddrFrom4(a).String() + "."
	}
	return netip.AddrFrom4(a).String()
}

func (g generator) v6() string {
	a := randomAddr(g.Rand)
	if g.IntN(4) == 0 {
		a = netip.MustParseAddr(g.pick("2001:db8:10::1", "2001:db8:10:66::1", "2001:db8:30::1", "2001:db8:31::1", "2002:a42:1::", "64:ff9b::a42:1", "64:ff9b::a14:1"))
	}
	b := a.As16()
	switch g.IntN(6) {
	case 0:
		return "[" + netip.AddrFrom16(b).StringExpanded() + "]"
	case 1:
		return "[" + strings.ToUpper(netip.AddrFrom16(b).String()) + "]"
	case 2:
		return fmt.Sprintf("[%x:%x:%x:%x:%x:%x:%d.%d.%d.%d]", uint16(b[0])<<8|uint16(b[1]), uint16(b[2])<<8|uint16(b[3]), uint16(b[4])<<8|uint16(b[5]),
			uint16(b[6])<<8|uint16(b[7]), uint16(b[8])<<8|uint16(b[9]), uint16(b[10])<<8|uint16(b[11]), b[12], b[13], b[14], b[15])
	case 3:
		return "[" + netip.AddrFrom16(b).String() + g.pick("%lo", "%25lo", "%1", "/128", "") + "]"
	}
	return "[" + netip.AddrFrom16(b).String() + "]"
}

// mutate changes a byte or so.
func (g generator) mutate(s string) string {
	at := 0
	if s != "" {
		at = g.IntN(len(s))
	}
	switch g.IntN(4) {
	case 0:
		return s[:at] + g.pick(".", "-", "_", "\x00", "%", "@", " ", "[", "]", ":", "0", "。", "．", "１", "\u200b", "/", "xn--") + s[at:]
	case 1:
		return s[:at] + s[min(at+1, len(s)):]
	case 2:
		if s != "" {
			return s[:at] + string(rune(g.IntN(128))) + s[at+1:]
		}
	}
	return s + g.pick(".", "..", ".internal", "\x00", "#", "?x", "@db.internal", "%00", "/")
}
