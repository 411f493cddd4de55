package tunnel

import (
	"net"
	"net/netip"
	"time"
)

// Target says what a stream is for and on whose behalf.
type Target struct {
	Service string // "tcp", "unix", "http", or a product's own "example.com/x"
	Address string // host:port; an absolute path for unix; what the handler expects for a product's service
	Subject string // who asked, for policies and audits; the agent cannot verify it

	// RequestID and TraceParent (W3C Trace Context) appear in the logs of both
	// sides. An empty RequestID is replaced by a random one.
	RequestID   string
	TraceParent string
}

// String is the service and the address, such as "tcp:db.internal:5432".
func (t Target) String() string { return t.Service + ":" + t.Address }

// AgentInfo describes a connected agent. ID comes from the verified certificate;
// Instance, Software, Features, Services and Policy are what the agent says of itself.
type AgentInfo struct {
	ID         string
	Instance   string // random, new in each process
	Software   string
	Features   []string
	Services   []string
	Policy     string // digest of its policy, the newest; empty when it tells none
	RemoteAddr net.Addr
	Since      time.Time // when the session began
}

// addr is the address of a target as the other side reported it.
type addr struct{ network, address string }

func (a addr) Network() string { return a.network }
func (a addr) String() string  { return a.address }

// reachedAddr turns the address in a reply into the type that net.Dial would have
// used, since drivers look at it: pgx dials RemoteAddr again to cancel a query.
func reachedAddr(service, address string) net.Addr {
	switch service {
	case "unix":
		return &net.UnixAddr{Name: address, Net: "unix"}
	case "tcp", "http":
		if ap, err := netip.ParseAddrPort(address); err == nil {
			return net.TCPAddrFromAddrPort(ap)
		}
		return addr{network: "tcp", address: address}
	}
	return addr{network: service, address: address}
}
