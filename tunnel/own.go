package tunnel

import (
	"net"
	"net/netip"
	"net/url"
)

// ownAddress says what an address is to this agent: one of its own listeners, or where
// it finds a gateway. The policy's dialer has these on its deny floor: the one is the
// agent's own, and the other would lead a tunnel into itself.
func (a *Agent) ownAddress(at netip.AddrPort) (kind string) {
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	for _, l := range a.OwnListeners {
		if listensAt(l, at) {
			return "own listener"
		}
	}
	for _, l := range a.enforcement.connected() {
		if addr, ok := addrPort(l.mux.RemoteAddr()); ok && addr.Addr() == at.Addr() {
			return "gateway"
		}
	}
	for _, gateway := range a.Gateways {
		if u, err := url.Parse(gateway); err == nil {
			if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.Unmap() == at.Addr() {
				return "gateway"
			}
		}
	}
	return ""
}

// listensAt reports whether what connects to at reaches l.
func listensAt(l net.Addr, at netip.AddrPort) bool {
	own, ok := addrPort(l)
	switch {
	case !ok || own.Port() != at.Port():
		return false
	case own.Addr().IsUnspecified():
		return isLocal(at.Addr())
	}
	return own.Addr() == at.Addr()
}

// isLocal reports whether an interface of this machine has the address. If the system
// does not say, it has.
func isLocal(addr netip.Addr) bool {
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, i := range interfaces {
		if prefix, err := netip.ParsePrefix(i.String()); err == nil && prefix.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}

// addrPort is the address of a TCP or UDP socket, unmapped and without its zone.
func addrPort(a net.Addr) (netip.AddrPort, bool) {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		at = a.AddrPort()
	case *net.UDPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().WithZone("").Unmap(), at.Port()), at.IsValid()
}
