package tunnel_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

// at is a connection to a gateway at another address.
type at struct {
	transport.Mux
	remote net.Addr
}

func (m at) RemoteAddr() net.Addr { return m.remote }

func tcpAt(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// The addresses are of networks for documentation: nobody is there.
func TestAnAgentsOwnAddressesAreOnTheDenyFloor(t *testing.T) {
	const everything = `{"enable_access_restrictions": true, "allowed_endpoints": ["0.0.0.0/0", "::/0", "gateway.internal"`
	for _, document := range []string{everything + "]}", everything + `, {"endpoint": "192.0.2.7", "allow_special": true}, {"endpoint": "198.51.100.4:9100", "allow_special": true}]}`} {
		opened := strings.Contains(document, "allow_special")
		rules, err := policy.Parse(strings.NewReader(document))
		require.NoError(t, err)
		f := start(t, nil, &tunnel.Agent{
			Policy:       rules,
			Gateways:     []string{"https://gateway.example.com", "https://203.0.113.3:8443"},
			OwnListeners: []net.Addr{tcpAt("198.51.100.4:9100"), &net.UDPAddr{IP: net.ParseIP("2001:db8::4"), Port: 53}, tcpAt("[::]:9101"), &net.UnixAddr{Name: "/x"}},
			DialTimeout:  50 * time.Millisecond,
			Dialers: []transport.Dialer{through(func(ctx context.Context, url string, d *mem.Dialer) (transport.Mux, error) {
				mux, err := d.Dial(ctx, url)
				return at{mux, tcpAt("[::ffff:192.0.2.7]:443")}, err
			})},
			Resolver: fakeResolver(func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
			}),
		})
		s := f.session(t)
		for _, tt := range []struct {
			address string
			denied  bool
			opens   bool // the second document opens it
		}{
			{"192.0.2.7:443", true, true},
			{"192.0.2.7:22", true, true},
			{"gateway.internal:22", true, true},
			{"[64:ff9b::192.0.2.7]:22", true, false},
			{"192.0.2.8:443", false, false},
			{"203.0.113.3:22", true, false},
			{"198.51.100.4:9100", true, true},
			{"198.51.100.4:9101", false, false},
			{"[2001:db8::4]:53", true, false},
			{"[2001:db8::4]:54", false, false},
		} {
			c, err := s.Open(t.Context(), tunnel.Target{Service: "tcp", Address: tt.address})
			if err == nil { // a network that answers for everybody
				require.NoError(t, c.Close())
			}
			require.Equal(t, tt.denied && (!opened || !tt.opens), errors.Is(err, transport.Denied), "%s: %v", tt.address, err)
		}
	}
}
