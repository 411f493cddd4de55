package policy_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
)

// This file is a second implementation of the decision, written for the eye: it
// looks at every rule, with other means than the package where there are any. The
// tests of this package compare the two.

var naiveFloor4 = []string{
	"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
}

var naiveFloor6 = []string{
	"::/128", "::1/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "fd00:42::42/128",
}

var cidrs sync.Map // text -> *net.IPNet; parsing is most of the time of these tests

func cidr(s string) *net.IPNet {
	if n, ok := cidrs.Load(s); ok {
		return n.(*net.IPNet)
	}
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	cidrs.Store(s, n)
	return n
}

func inAny(ip net.IP, prefixes []string) bool {
	for _, p := range prefixes {
		if cidr(p).Contains(ip) {
			return true
		}
	}
	return false
}

func naiveSpecial(addr netip.Addr) bool {
	ip := net.IP(addr.WithZone("").AsSlice())
	if v4 := ip.To4(); v4 != nil {
		return inAny(v4, naiveFloor4)
	}
	if inAny(ip, naiveFloor6) {
		return true
	}
	for _, v4 := range naiveInner(ip) {
		if inAny(v4, naiveFloor4) {
			return true
		}
	}
	return false
}

// naiveInner reads the IPv4 addresses inside an IPv6 address from its 32 hex digits.
func naiveInner(ip net.IP) (inner []net.IP) {
	hex := ""
	for _, b := range ip {
		hex += string("0123456789abcdef"[b>>4]) + string("0123456789abcdef"[b&15])
	}
	read := func(digits string, invert bool) net.IP {
		v4 := make(net.IP, 4)
		for i := range v4 {
			n, err := strconv.ParseUint(digits[2*i:2*i+2], 16, 8)
			if err != nil {
				panic(err)
			}
			v4[i] = byte(n)
			if invert {
				v4[i] = 255 - v4[i]
			}
		}
		return v4
	}
	for _, prefix := range []string{"::/96", "::ffff:0:0:0/96", "64:ff9b::/96"} {
		if cidr(prefix).Contains(ip) {
			inner = append(inner, read(hex[24:], false))
		}
	}
	if cidr("64:ff9b:1::/48").Contains(ip) {
		for _, digits := range []string{hex[12:16] + hex[18:22], hex[14:16] + hex[18:24], hex[18:26], hex[24:]} {
			if digits[:2] != "00" {
				inner = append(inner, read(digits, false))
			}
		}
	}
	if cidr("2002::/16").Contains(ip) {
		inner = append(inner, read(hex[4:12], false))
	}
	if cidr("2001::/32").Contains(ip) {
		inner = append(inner, read(hex[8:16], false), read(hex[24:], true))
	}
	for _, id := range []string{"00005efe", "01005efe", "02005efe", "03005efe"} {
		if hex[16:24] == id {
			inner = append(inner, read(hex[24:], false))
		}
	}
	return inner
}

var randomV4 = []string{
	"10.0.0.1", "10.0.0.2", "10.0.1.50", "10.1.2.3", "192.168.0.7", "8.8.8.8", "127.0.0.1", "127.8.0.1", "169.254.169.254", "169.254.1.1", "0.0.0.0", "224.0.0.1",
	"255.255.255.255", "100.100.100.200", "168.63.129.16", "0.1.2.3",
}

// randomAddr is often near an edge of the deny floor.
func randomAddr(random *rand.Rand) netip.Addr {
	v4 := netip.MustParseAddr(randomV4[random.IntN(len(randomV4))]).As4()
	if random.IntN(4) == 0 {
		for i := range v4 {
			v4[i] = byte(random.Uint32())
		}
	}
	var b [16]byte
	if random.IntN(3) == 0 {
		for i := range b {
			b[i] = byte(random.Uint32())
		}
	}
	set := func(prefix string, at int) {
		a := netip.MustParseAddr(prefix).As16()
		copy(b[:at], a[:at])
	}
	switch random.IntN(14) {
	case 0, 1, 2, 3:
		return netip.AddrFrom4(v4)
	case 4:
		b = [16]byte{}
		copy(b[12:], v4[:])
	case 5:
		return netip.AddrFrom16(netip.AddrFrom4(v4).As16())
	case 6:
		set("64:ff9b::", 12)
		copy(b[12:], v4[:])
	case 7:
		set("64:ff9b:1::", 6)
		switch random.IntN(4) {
		case 0:
			b[6], b[7], b[9], b[10] = v4[0], v4[1], v4[2], v4[3]
		case 1:
			b[7], b[9], b[10], b[11] = v4[0], v4[1], v4[2], v4[3]
		case 2:
			copy(b[9:], v4[:])
		case 3:
			copy(b[12:], v4[:])
		}
	case 8:
		set("2002::", 2)
		copy(b[2:], v4[:])
	case 9:
		set("2001::", 4)
		copy(b[4:], v4[:])
	case 10:
		set("2001::", 8)
		copy(b[4:], []byte{8, 8, 8, 8})
		for i := range v4 {
			b[12+i] = ^v4[i]
		}
	case 11:
		b[8], b[9], b[10], b[11] = byte(random.IntN(5)), 0, 0x5e, 0xfe
		copy(b[12:], v4[:])
	case 12:
		set("::ffff:0:0:0", 12)
		copy(b[12:], v4[:])
	case 13:
		lists := append([]string{"2001:db8::/32", "fd00::/64"}, naiveFloor6...)
		return netip.MustParsePrefix(lists[random.IntN(len(lists))]).Addr()
	}
	return netip.AddrFrom16(b).Unmap()
}

// naiveRule is a rule before it was written down.
type naiveRule struct {
	name    string // exact name, or
	suffix  string // *.suffix, or
	prefix  string // CIDR, or
	star    bool   // any host
	port    int    // 0 is any
	last    int    // of a range from port; 0 otherwise
	service string
	special bool
}

func (r naiveRule) text() string {
	endpoint := r.name
	switch {
	case r.suffix != "":
		endpoint = "*." + r.suffix
	case r.star:
		endpoint = "*"
	case r.prefix != "":
		endpoint = strings.TrimSuffix(r.prefix, "/32")
		if strings.Contains(endpoint, ":") {
			endpoint = strings.TrimSuffix(r.prefix, "/128")
		}
		if strings.Contains(endpoint, ":") && r.port != 0 {
			endpoint = "[" + endpoint + "]"
		}
	}
	if r.port != 0 {
		endpoint += ":" + strconv.Itoa(r.port)
	}
	if r.last != 0 {
		endpoint += "-" + strconv.Itoa(r.last)
	}
	if r.service == "" && !r.special {
		return `"` + endpoint + `"`
	}
	s := `{endpoint: "` + endpoint + `"`
	if r.service != "" {
		s += ", service: " + r.service
	}
	if r.special {
		s += ", allow_special: true"
	}
	return s + "}"
}

func (r naiveRule) speaksOf(service string, port int) bool {
	return (r.service == "" || r.service == service) && (r.port == 0 || r.port == port || r.port < port && port <= r.last)
}

// matches looks at the name, "" for a literal, and at one address of it.
func (r naiveRule) matches(name string, ip net.IP, strict bool) bool {
	switch {
	case r.name != "":
		return r.name == name
	case r.suffix != "":
		return strings.HasSuffix(name, "."+r.suffix) && (strict || !strings.Contains(strings.TrimSuffix(name, r.suffix), "xn--"))
	case r.star:
		return strict || !strings.Contains(name, "xn--")
	}
	n := cidr(r.prefix)
	if n.Contains(ip) && (ip.To4() != nil) == (n.IP.To4() != nil) {
		return true
	}
	if strict && ip.To4() == nil {
		for _, v4 := range naiveInner(ip) {
			if n.IP.To4() != nil && n.Contains(v4) {
				return true
			}
		}
	}
	return false
}

type naivePolicy struct {
	restricted  bool
	allow, deny []naiveRule
}

func (p naivePolicy) text() string {
	var b strings.Builder
	b.WriteString("enable_access_restrictions: " + strconv.FormatBool(p.restricted) + "\n")
	for key, list := range map[string][]naiveRule{"allowed_endpoints": p.allow, "denied_endpoints": p.deny} {
		b.WriteString(key + ":\n")
		for _, r := range list {
			b.WriteString("  - " + r.text() + "\n")
		}
	}
	return b.String()
}

// permits decides for good: the name is "" when the target is the address itself.
func (p naivePolicy) permits(service, name string, addr netip.Addr, port int) bool {
	ip := net.IP(addr.AsSlice())
	for _, r := range p.deny {
		if r.speaksOf(service, port) && r.matches(name, ip, true) {
			return false
		}
	}
	if naiveSpecial(addr) {
		for _, r := range p.allow {
			if r.special && r.speaksOf(service, port) && r.matches(name, ip, false) {
				return true
			}
		}
		return false
	}
	if !p.restricted {
		return true
	}
	for _, r := range p.allow {
		if r.speaksOf(service, port) && r.matches(name, ip, false) {
			return true
		}
	}
	return false
}

func pick[T any](random *rand.Rand, from ...T) T { return from[random.IntN(len(from))] }

var (
	naiveNames    = []string{"db.internal", "db.prod.internal", "a.b.prod.internal", "prod.internal", "internal", "xn--bcher-kva.prod.internal", "a.xn--p1ai", "db"}
	naivePrefixes = []string{
		"10.0.0.0/8", "10.0.1.50/32", "10.0.0.0/30", "0.0.0.0/0", "192.168.0.0/16", "127.0.0.1/32", "169.254.169.254/32", "2001:db8::/32", "2001:db8::1/128", "::/0", "fd00::/8", "::1/128", "127.0.0.0/8",
	}
	naivePorts = []int{0, 0, 80, 443, 5432}
)

func randomPolicy(random *rand.Rand) naivePolicy {
	rules := func(allow bool) (list []naiveRule) {
		for range random.IntN(5) {
			r := naiveRule{port: pick(random, naivePorts...), service: pick(random, "", "", "tcp", "http", "udp")}
			switch random.IntN(5) {
			case 0:
				r.name = pick(random, naiveNames...)
			case 1:
				r.suffix = pick(random, naiveNames...)
			case 2:
				r.star, r.port = true, pick(random, 80, 443, 5432)
			default:
				r.prefix = pick(random, naivePrefixes...)
				single := strings.HasSuffix(r.prefix, "/32") && !strings.Contains(r.prefix, ":") || strings.HasSuffix(r.prefix, "/128")
				r.special = allow && single && random.IntN(2) == 0
			}
			if r.port != 0 && random.IntN(4) == 0 {
				r.last = r.port + 1 + random.IntN(400)
			}
			list = append(list, r)
		}
		return list
	}
	p := naivePolicy{restricted: random.IntN(3) > 0, allow: rules(true)}
	if random.IntN(2) == 0 {
		p.deny = rules(false)
	}
	return p
}
