package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

type patternKind uint8

const (
	everything patternKind = iota // no endpoint: all of a service
	exactName
	suffixName // *.host
	anyHost    // *:port
	prefixAddr // an IP address is a prefix of full length
	exactPath  // a unix socket, or a product service's own address
)

// pattern is a parsed endpoint.
type pattern struct {
	kind   patternKind
	host   string // of exactName and suffixName
	prefix netip.Prefix
	port   uint16 // 0 is any
	last   uint16 // of a range that begins with port; 0 otherwise
	path   string
}

// portKey is the port that an index files the pattern under: ranges are with those
// for any port.
func (p pattern) portKey() uint16 {
	if p.last != 0 {
		return 0
	}
	return p.port
}

// ports is the number of ports that the pattern is for.
func (p pattern) ports() int {
	switch {
	case p.port == 0:
		return maxPort
	case p.last == 0:
		return 1
	}
	return int(p.last-p.port) + 1
}

func (p pattern) isAddr() bool { return p.kind == prefixAddr && p.prefix.IsSingleIP() }

func (p pattern) String() string {
	var s string
	switch p.kind {
	case exactName:
		s = p.host
	case suffixName:
		s = "*." + p.host
	case anyHost:
		s = "*"
	case exactPath:
		return p.path
	case prefixAddr:
		s = p.prefix.String()
		if p.isAddr() {
			s = p.prefix.Addr().String()
		}
		if p.port != 0 && p.prefix.Addr().Is6() {
			s = "[" + s + "]"
		}
	default: // everything: a rule that names a service only
	}
	if p.port != 0 {
		s += ":" + strconv.Itoa(int(p.port))
	}
	if p.last != 0 {
		s += "-" + strconv.Itoa(int(p.last))
	}
	return s
}

// setPorts reads a port or a range of them.
func (p *pattern) setPorts(digits string) (reason string) {
	first, last, isRange := strings.Cut(digits, "-")
	if p.port, reason = parsePort(first); reason != "" || !isRange {
		return reason
	}
	if p.last, reason = parsePort(last); reason == "" && p.last <= p.port {
		reason = "a range of ports goes from the lower to the higher, such as 8000-8099"
	}
	return reason
}

// parsePattern reads the endpoint of a rule for services with a host.
func parsePattern(s string) (p pattern, reason string) {
	switch {
	case s == "":
		return p, "the endpoint is empty"
	case len(s) > maxEndpoint:
		return p, "the endpoint is too long"
	case strings.HasPrefix(s, "/"):
		return p, `a unix socket needs the service: {endpoint: "/path", service: unix}`
	case strings.HasPrefix(s, "["):
		return parseBracketPattern(s)
	case strings.Contains(s, "/"):
		return parsePrefixPattern(s)
	case strings.Count(s, ":") > 1:
		return addrPattern(s)
	}
	host, digits, hasPort := strings.Cut(s, ":")
	if hasPort {
		if reason = p.setPorts(digits); reason != "" {
			return p, reason
		}
	}
	return parseHostPattern(p, host)
}

func parseHostPattern(p pattern, host string) (_ pattern, reason string) {
	if host == "*" {
		p.kind = anyHost
		if p.port == 0 {
			return p, `"*" alone is every endpoint: to allow them all write enable_access_restrictions: false, to deny them all write true and allow none`
		}
		return p, ""
	}
	name := host
	p.kind = exactName
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		name = rest
		p.kind = suffixName
	}
	if strings.Contains(name, "*") {
		return p, `a star stands for whole labels at the left ("*.example.com") or for the host ("*:5432")`
	}
	if isLiteral(name) {
		if p.kind == suffixName {
			return p, "a star does not go with an IP address; write a prefix such as 10.0.0.0/8"
		}
		addr, reason := addrPattern(name)
		addr.port, addr.last = p.port, p.last
		return addr, reason
	}
	p.host, reason = canonicalHost(name)
	return p, reason
}

func addrPattern(host string) (p pattern, reason string) {
	canonical, reason := canonicalLiteral(host)
	if reason != "" {
		return p, reason
	}
	addr, err := netip.ParseAddr(canonical)
	if err != nil {
		return p, "it is not an IP address"
	}
	return pattern{kind: prefixAddr, prefix: netip.PrefixFrom(addr, addr.BitLen())}, ""
}

// parseBracketPattern reads [v6]:port and [v6/bits]:port.
func parseBracketPattern(s string) (p pattern, reason string) {
	inner, rest, ok := strings.Cut(s[1:], "]")
	if !ok || !strings.HasPrefix(rest, ":") || !strings.Contains(inner, ":") {
		return p, "brackets are for an IPv6 address or prefix with a port: [2001:db8::1]:443, [2001:db8::/32]:443"
	}
	if strings.Contains(inner, "/") {
		p, reason = prefixPattern(inner)
	} else {
		p, reason = addrPattern(inner)
	}
	if reason == "" {
		reason = p.setPorts(rest[1:])
	}
	return p, reason
}

// parsePrefixPattern reads v4/bits, v4/bits:port and v6/bits.
func parsePrefixPattern(s string) (p pattern, reason string) {
	addr, tail, _ := strings.Cut(s, "/")
	bits, digits, hasPort := strings.Cut(tail, ":")
	if hasPort && strings.Contains(addr, ":") {
		return p, "an IPv6 prefix with a port is written [2001:db8::/32]:443"
	}
	p, reason = prefixPattern(addr + "/" + bits)
	if reason == "" && hasPort {
		reason = p.setPorts(digits)
	}
	return p, reason
}

func prefixPattern(s string) (p pattern, reason string) {
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, `it is not an address prefix such as 10.0.0.0/8; a product's service is written {service: "example.com/x"}`
	case prefix.Addr().Is4In6():
		return p, "write the IPv4 prefix instead of the IPv4-mapped one"
	case prefix.Masked() != prefix:
		return p, "the prefix has bits after its length; write " + prefix.Masked().String()
	}
	return pattern{kind: prefixAddr, prefix: prefix}, ""
}
