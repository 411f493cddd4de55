package policy

import "strconv"

// Target is a parsed, canonical destination. It is comparable. Make one with
// [ParseTarget]; a hand-made one is not checked.
type Target struct {
	Service string // "tcp", "unix", "http", or a product's own "example.com/x"
	Host    string // lower-case name without trailing dot, or IP literal without brackets; empty for unix and product services
	Port    uint16 // 0 where the service has none
	Path    string // the socket's absolute path (unix), or a product service's own address
}

// Address is what ParseTarget parses back to t.
func (t Target) Address() string {
	if t.Host == "" {
		return t.Path
	}
	return joinHostPort(t.Host, t.Port)
}

// String is the service and the address, such as "tcp:db.internal:5432".
func (t Target) String() string { return t.Service + ":" + t.Address() }

func joinHostPort(host string, port uint16) string {
	for i := range len(host) {
		if host[i] == ':' {
			return "[" + host + "]:" + strconv.Itoa(int(port))
		}
	}
	return host + ":" + strconv.Itoa(int(port))
}
