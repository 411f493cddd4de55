package transporttest

import (
	"crypto/tls"
	"net"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func identityTests() []test {
	return []test{{"both sides see the peer's verified certificate", peerCertificates}}
}

func peerCertificates(t *trial) {
	p := t.connect()
	for name, m := range map[string]transport.Mux{"dialed": p.Dialed, "accepted": p.Accepted} {
		state := m.ConnectionState()
		require.True(t, state.HandshakeComplete, "%s: the handshake is complete", name)
		require.GreaterOrEqual(t, state.Version, uint16(tls.VersionTLS13), "%s: TLS 1.3 or newer", name)
		require.NotEmpty(t, state.PeerCertificates, "%s: the peer has a certificate", name)
		require.NotEmpty(t, state.VerifiedChains, "%s: the peer's certificate was verified", name)
		require.Same(t, state.PeerCertificates[0], state.VerifiedChains[0][0], "%s: it is the peer's certificate that was verified", name)
	}
	require.NotEqual(t, p.Dialed.ConnectionState().PeerCertificates[0].Subject.String(),
		p.Accepted.ConnectionState().PeerCertificates[0].Subject.String(), "each side sees the other, not itself")
}

func addressTests() []test {
	return []test{{"connections and streams have addresses, also after their end", addresses}}
}

func addresses(t *trial) {
	type addressed interface {
		LocalAddr() net.Addr
		RemoteAddr() net.Addr
	}
	t.eachWay(func(c oneWay) {
		opened, accepted := t.open(c)
		check := func(when string) {
			for name, x := range map[string]addressed{
				"opener": c.opener, "acceptor": c.acceptor, "opened stream": opened, "accepted stream": accepted,
			} {
				for _, a := range []net.Addr{x.LocalAddr(), x.RemoteAddr()} {
					require.NotNil(t, a, "%s, %s %s", c.name, name, when)
					require.NotEmpty(t, a.Network(), "%s, %s %s", c.name, name, when)
					require.NotEmpty(t, a.String(), "%s, %s %s", c.name, name, when)
				}
			}
		}
		check("while it lives")
		require.NoError(t, opened.Close())
		require.NoError(t, accepted.Close())
		check("after the streams were closed")
		require.NoError(t, c.opener.CloseWithError(transport.NoError, ""))
		check("after the connection was closed")
	})
}
