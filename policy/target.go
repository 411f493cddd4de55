package policy

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/outgate/outgate/transport"
)

const (
	maxUnixPath       = 104 // sun_path of the smallest platform
	maxProductAddress = 256
	maxProductService = 128
	maxPort           = 65535
	maxHostPort       = len("[]:65535") + maxName + 1 // a trailing dot
	maxEndpoint       = maxHostPort + len("-65535")   // of a rule
	maxShown          = 80
)

// Target is a parsed, canonical destination. It is comparable. Make one with
// [ParseTarget]. [Rules] and [Dialer] refuse one that ParseTarget would not have
// made.
type Target struct {
	Service string // "tcp", "udp", "http", "icmp", "unix", or a product's own "example.com/x"
	Host    string // lower-case name without trailing dot, or IP literal without brackets; empty for unix and product services
	Port    uint16 // 0 where the service has none, such as icmp
	Path    string // the socket's absolute path (unix), or a product service's own address
}

// Address is what ParseTarget parses back to t.
func (t Target) Address() string {
	switch {
	case t.Host == "":
		return t.Path
	case t.Port == 0:
		return t.Host
	}
	return joinHostPort(t.Host, t.Port)
}

// String is the service and the address, such as "tcp:db.internal:5432".
func (t Target) String() string { return t.Service + ":" + t.Address() }

// TargetError says why an address is not a target. It matches its Code with
// errors.Is.
type TargetError struct {
	Service string
	Address string         // as it was asked for: another's words
	Reason  string         // what is wrong with it; safe to send back
	Code    transport.Code // Protocol, or UnknownService when no service has that name
}

func (e *TargetError) Error() string {
	return fmt.Sprintf("policy: target %q of service %q: %s", shorten(e.Address), shorten(e.Service), e.Reason)
}

// shorten keeps another's words from filling a log.
func shorten(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + "..."
	}
	return s
}

// Is reports whether target is the code of e.
func (e *TargetError) Is(target error) bool { return target == error(e.Code) }

// ParseTarget is the one parser of what a stream asks for. Policies, dialers, logs
// and audit trails all see its result, so that there is one spelling of each
// destination. It refuses with a *[TargetError] what two readers could understand
// differently.
//
// Services "tcp", "udp" and "http" take host:port. The port is always written, in
// one to five digits without sign or leading zero, 1 to 65535; http has no default.
// The host is one of
//
//   - a name of letters, digits, hyphens and underscores (RFC 1123 and the
//     underscore of RFC 8552), labels of at most 63 bytes, 253 in all. Upper case
//     becomes lower case and one trailing dot is taken off. An internationalised
//     label is accepted as its lower-case A-label (RFC 5890) only. A name that ends
//     in a number, such as 127.1 or 0x7f000001, is refused: resolvers read it as an
//     IPv4 address.
//   - an IPv4 address in four decimal parts.
//   - an IPv6 address in brackets, which takes the form of RFC 5952. An IPv4-mapped
//     one (::ffff:10.0.0.1) is the IPv4 address. Zones are refused.
//
// Service "icmp", which is for echo requests and routes traced, takes a host alone: a
// name or an address as above, IPv6 without brackets. No stream has this service; what
// a probe asks of the network has.
//
// Service "unix" takes an absolute, clean path of at most 104 bytes of printable
// ASCII. Abstract sockets are refused.
//
// A service with a slash, such as "example.com/x", is a product's own: a lower-case
// domain name of at least two labels, and a path of a-z, 0-9, '.', '_' and '-'. Its
// address is opaque, at most 256 bytes of printable ASCII, and may be empty.
//
// All other names of services are reserved.
func ParseTarget(service, address string) (Target, error) {
	t, reason := parseTarget(service, address)
	if reason == "" {
		return t, nil
	}
	return Target{}, newTargetError(service, address, reason)
}

func newTargetError(service, address, reason string) *TargetError {
	e := &TargetError{Service: service, Address: address, Reason: reason, Code: transport.Protocol}
	if reason == reasonUnknownService || reason == reasonNotDialed {
		e.Code = transport.UnknownService
	}
	return e
}

const reasonUnknownService = `the service is unknown; use tcp, udp, http, icmp, unix or a product's own such as "example.com/x"`

const reasonNotDialed = "the service has no address to connect to"

func parseTarget(service, address string) (Target, string) {
	switch {
	case hasHostPort(service):
		host, port, reason := parseHostPort(address)
		return Target{Service: service, Host: host, Port: port}, reason
	case service == "icmp":
		host, reason := parseHost(address)
		return Target{Service: service, Host: host}, reason
	case service == "unix":
		return Target{Service: service, Path: address}, checkUnixPath(address)
	case strings.Contains(service, "/"):
		if reason := checkProductService(service); reason != "" {
			return Target{}, reason
		}
		return Target{Service: service, Path: address}, checkProductAddress(address)
	}
	return Target{}, reasonUnknownService
}

// check says why ParseTarget would not have made t, or "". It is what parseTarget
// accepts without changing it, and does not allocate for a good target.
func (t Target) check() string {
	const changed = "the target is not canonical; make it with ParseTarget"
	if hasHost(t.Service) {
		switch {
		case t.Path != "", t.Port != 0 && !hasHostPort(t.Service):
			return changed
		case t.Port == 0 && hasHostPort(t.Service):
			return reasonPort
		}
		host, reason := canonicalHost(t.Host)
		if reason == "" && host != t.Host {
			reason = changed
		}
		return reason
	}
	if t.Host != "" || t.Port != 0 {
		return changed
	}
	_, reason := parseTarget(t.Service, t.Path)
	return reason
}

// literal is the address that t names itself, without a resolver.
func (t Target) literal() (addr netip.Addr, ok bool) {
	if !isLiteral(t.Host) {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(t.Host)
	return addr, err == nil
}

// hasHostPort reports whether the service's address is a host and a port.
func hasHostPort(service string) bool {
	return service == "tcp" || service == "http" || service == "udp"
}

// hasHost reports whether the service's target is a machine in the network.
func hasHost(service string) bool {
	return hasHostPort(service) || service == "icmp"
}

const (
	reasonHostPort = "it is not host:port"
	reasonPort     = "the port is not a number from 1 to 65535 without sign or leading zeros"
)

func parseHost(address string) (host, reason string) {
	if len(address) > maxHostPort {
		return "", "it is too long"
	}
	return canonicalHost(address)
}

func parseHostPort(address string) (host string, port uint16, reason string) {
	if len(address) > maxHostPort {
		return "", 0, "it is too long"
	}
	if strings.HasPrefix(address, "[") {
		inner, rest, ok := strings.Cut(address[1:], "]")
		if !ok || !strings.HasPrefix(rest, ":") {
			return "", 0, "an IPv6 address is written [address]:port"
		}
		if !strings.Contains(inner, ":") {
			return "", 0, "only an IPv6 address stands in brackets"
		}
		if host, reason = canonicalHost(inner); reason != "" {
			return "", 0, reason
		}
		port, reason = parsePort(rest[1:])
		return host, port, reason
	}
	name, digits, ok := strings.Cut(address, ":")
	if !ok {
		return "", 0, reasonHostPort
	}
	if strings.Contains(digits, ":") {
		return "", 0, "an IPv6 address is written [address]:port"
	}
	if host, reason = canonicalHost(name); reason != "" {
		return "", 0, reason
	}
	port, reason = parsePort(digits)
	return host, port, reason
}

func parsePort(digits string) (port uint16, reason string) {
	if digits == "" || len(digits) > len("65535") || digits[0] == '0' {
		return 0, reasonPort
	}
	var n uint32
	for i := range len(digits) {
		if !isDigit(digits[i]) {
			return 0, reasonPort
		}
		n = n*10 + uint32(digits[i]-'0')
	}
	if n > 65535 {
		return 0, reasonPort
	}
	return uint16(n), ""
}

func joinHostPort(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(port))
}

func checkUnixPath(p string) string {
	switch {
	case len(p) > maxUnixPath:
		return "the path is longer than 104 bytes"
	case !strings.HasPrefix(p, "/"):
		return "the path of a socket is absolute"
	case !printable(p):
		return "the path has a byte that is not printable ASCII"
	case p == "/" || path.Clean(p) != p:
		return "the path is not clean: no empty element, no . or .., no slash at the end"
	}
	return ""
}

func checkProductService(service string) string {
	const form = `a product's service is a lower-case domain name of at least two labels, a slash and a name of a-z, 0-9, '.', '_', '-', such as "example.com/x"`
	if len(service) > maxProductService {
		return "the service's name is longer than 128 bytes"
	}
	owner, name, _ := strings.Cut(service, "/")
	canonical, reason := canonicalHost(owner)
	if reason != "" || canonical != owner || isLiteral(owner) || !strings.Contains(owner, ".") || strings.Contains(owner, "_") {
		return form
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element == "." || element == ".." {
			return form
		}
		for i := range len(element) {
			if c := element[i]; !isLower(c) && !isDigit(c) && c != '.' && c != '_' && c != '-' {
				return form
			}
		}
	}
	return ""
}

func checkProductAddress(address string) string {
	switch {
	case len(address) > maxProductAddress:
		return "the address is longer than 256 bytes"
	case !printable(address):
		return "the address has a byte that is not printable ASCII"
	}
	return ""
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
