package tunnel

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAListenerOnAllAddressesIsAtEachOfThisMachine(t *testing.T) {
	for _, all := range []string{"0.0.0.0:9100", "[::]:9100"} {
		l := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(all))
		for at, own := range map[string]bool{"127.0.0.1:9100": true, "127.0.0.1:9101": false, "192.0.2.1:9100": false, "[2001:db8::1]:9100": false} {
			require.Equal(t, own, listensAt(l, netip.MustParseAddrPort(at)), "%s at %s", all, at)
		}
		interfaces, err := net.InterfaceAddrs()
		require.NoError(t, err)
		for _, i := range interfaces {
			local := netip.MustParsePrefix(i.String()).Addr()
			require.True(t, listensAt(l, netip.AddrPortFrom(local, 9100)))
		}
	}
}
