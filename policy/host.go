package policy

import (
	"net/netip"
	"strings"
)

const (
	maxName  = 253 // RFC 1035 section 2.3.4, less the length bytes
	maxLabel = 63
)

// canonicalHost returns the one spelling of a name or of an IP address, or the
// reason why it is neither. It does not allocate for a canonical host.
func canonicalHost(host string) (canonical, reason string) {
	if isLiteral(host) {
		return canonicalLiteral(host)
	}
	host, reason = canonicalName(host)
	if reason == "" && endsInNumber(host) {
		// "127.1.": the number was hidden from isLiteral by the dot.
		reason = reasonNumber
	}
	return host, reason
}

const reasonNumber = "a name that ends in a number can be read as an IPv4 address; write an address in its usual form, without leading zeros"

// isLiteral reports whether the host must be an IP address: nothing that a reader
// might take for one is a name.
func isLiteral(host string) bool {
	return strings.Contains(host, ":") || endsInNumber(host)
}

func canonicalLiteral(host string) (canonical, reason string) {
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil && strings.Contains(host, ":"):
		return "", "it is not an IPv6 address"
	case err != nil:
		return "", reasonNumber
	case addr.Zone() != "":
		return "", "an address with a zone means something else on each machine"
	}
	var buf [len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")]byte
	if b := addr.Unmap().AppendTo(buf[:0]); string(b) != host {
		return string(b), ""
	}
	return host, ""
}

// endsInNumber reports whether the last label is decimal, or hexadecimal after 0x:
// inet_aton and the WHATWG URL parser take such a host for an IPv4 address.
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" {
		return false
	}
	if len(last) >= 2 && last[0] == '0' && (last[1] == 'x' || last[1] == 'X') {
		return strings.Trim(last[2:], "0123456789abcdefABCDEF") == ""
	}
	for i := range len(last) {
		if !isDigit(last[i]) {
			return false
		}
	}
	return true
}

func canonicalName(name string) (canonical, reason string) {
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return "", "the host is missing"
	}
	if len(name) > maxName {
		return "", "the name is longer than 253 bytes"
	}
	upper := false
	for label := range strings.SplitSeq(name, ".") {
		if reason := checkLabel(label); reason != "" {
			return "", reason
		}
		for i := range len(label) {
			upper = upper || isUpper(label[i])
		}
	}
	if upper {
		name = strings.ToLower(name)
	}
	return name, ""
}

func checkLabel(label string) string {
	switch {
	case label == "":
		return "the name has an empty label"
	case len(label) > maxLabel:
		return "the name has a label of more than 63 bytes"
	case label[0] == '-' || label[len(label)-1] == '-':
		return "the name has a label that begins or ends with a hyphen"
	}
	aLabel := isALabel(label)
	for i := range len(label) {
		c := label[i]
		switch {
		case isLower(c), isDigit(c), c == '-':
		case isUpper(c):
			if aLabel {
				return "an A-label (xn--) is written in lower case"
			}
		case c == '_' && !aLabel:
		default:
			return "the name has a byte that is not a letter, a digit, a hyphen or an underscore"
		}
	}
	return ""
}

const aLabelPrefix = "xn--"

// isALabel reports whether the label is an internationalised one (RFC 5890).
func isALabel(label string) bool {
	return len(label) >= len(aLabelPrefix) && strings.EqualFold(label[:len(aLabelPrefix)], aLabelPrefix)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
