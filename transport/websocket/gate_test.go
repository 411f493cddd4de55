package websocket

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASourceIsAnAddressOfIPv4OrANetworkOfIPv6(t *testing.T) {
	for address, want := range map[string]netip.Prefix{
		"192.0.2.7":               netip.MustParsePrefix("192.0.2.7/32"),
		"::ffff:192.0.2.7":        netip.MustParsePrefix("192.0.2.7/32"),
		"2001:db8:1:2:3:4:5:6":    netip.MustParsePrefix("2001:db8:1:2::/64"),
		"2001:db8:1:2:ffff::":     netip.MustParsePrefix("2001:db8:1:2::/64"),
		"fe80::1%eth0":            netip.MustParsePrefix("fe80::/64"),
		"2001:db8:1:3:3:4:5:6%lo": netip.MustParsePrefix("2001:db8:1:3::/64"),
	} {
		ip := netip.MustParseAddr(address)
		require.Equal(t, want, sourceOf(net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 1))), address)
	}
	require.False(t, sourceOf(&net.UnixAddr{Name: "@", Net: "unix"}).IsValid())
	require.False(t, sourceOf(&net.TCPAddr{}).IsValid())
}
