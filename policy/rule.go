package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

// rule is one entry of allowed_endpoints or denied_endpoints.
type rule struct {
	pattern
	service string // the only service it speaks of; "" is every service with host:port
	special bool   // allow_special
	line    int
	text    string // what Denied and Decision show
	source  string // what Parse reads back; equal rules have the same
}

func (r *rule) covers(service string) bool {
	return r.service == service || r.service == "" && hasHostPort(service)
}

// quoted is the rule's source. Strings of a rule are printable ASCII, for which the
// quotes of Go are those of YAML and JSON.
func (r *rule) quoted() string {
	if r.service == "" && !r.special {
		return strconv.Quote(r.pattern.String())
	}
	var fields []string
	if r.kind != everything {
		fields = append(fields, `"endpoint": `+strconv.Quote(r.pattern.String()))
	}
	if r.service != "" {
		fields = append(fields, `"service": `+strconv.Quote(r.service))
	}
	if r.special {
		fields = append(fields, `"allow_special": true`)
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

func (r *rule) display() string {
	switch {
	case r.kind == everything:
		return "service " + r.service
	case r.service != "":
		return r.pattern.String() + " for service " + r.service
	}
	return r.pattern.String()
}

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
	path   string
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
	return s
}

// parsePattern reads the endpoint of a rule for services with host:port.
func parsePattern(s string) (p pattern, reason string) {
	switch {
	case s == "":
		return p, "the endpoint is empty"
	case len(s) > maxHostPort:
		return p, "the endpoint is too long"
	case strings.HasPrefix(s, "/"):
		return p, `a unix socket needs the service: {endpoint: "/path", service: unix}`
	case strings.HasPrefix(s, "["):
		return parseBracketPattern(s)
	case strings.Contains(s, "/"):
		return parsePrefixPattern(s)
	case strings.Count(s, ":") > 1:
		return addrPattern(s, 0)
	}
	host, digits, hasPort := strings.Cut(s, ":")
	if hasPort {
		if p.port, reason = parsePort(digits); reason != "" {
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
		return addrPattern(name, p.port)
	}
	p.host, reason = canonicalHost(name)
	return p, reason
}

func addrPattern(host string, port uint16) (p pattern, reason string) {
	canonical, reason := canonicalLiteral(host)
	if reason != "" {
		return p, reason
	}
	addr, err := netip.ParseAddr(canonical)
	if err != nil {
		return p, "it is not an IP address"
	}
	return pattern{kind: prefixAddr, prefix: netip.PrefixFrom(addr, addr.BitLen()), port: port}, ""
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
		p, reason = addrPattern(inner, 0)
	}
	if reason == "" {
		p.port, reason = parsePort(rest[1:])
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
		p.port, reason = parsePort(digits)
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
