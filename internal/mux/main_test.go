package mux_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/internal/mux"
	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 15 * time.Second

// soon is a context that bounds a wait.
func soon(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// identities are the two sides of TLS between an agent and a gateway.
type identities struct{ agent, gateway *tls.Config }

func newIdentities(tb testing.TB) identities {
	ca := testca.New(tb)
	agent, gateway := ca.Agent("agent-1"), ca.Gateway()
	agent.DynamicRecordSizingDisabled, gateway.DynamicRecordSizingDisabled = true, true
	return identities{agent, gateway}
}

// carrier is two connected sockets or pipes, and what TLS says about them.
type carrier struct {
	agent, gateway           net.Conn
	agentState, gatewayState tls.ConnectionState
	lowest                   []net.Conn
}

func (c carrier) cut() {
	for _, conn := range c.lowest {
		_ = conn.Close()
	}
}

// sockets returns two ends of a TCP connection over loopback.
func sockets(tb testing.TB) (dialed, accepted *net.TCPConn) {
	tb.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(tb, err)
	defer func() { _ = l.Close() }()
	addr, ok := l.Addr().(*net.TCPAddr)
	require.True(tb, ok)
	dialed, err = net.DialTCP("tcp", nil, addr)
	require.NoError(tb, err)
	accepted, err = l.AcceptTCP()
	require.NoError(tb, err)
	return dialed, accepted
}

// secure does the handshake of TLS over two ends.
func (i identities) secure(tb testing.TB, dialed, accepted net.Conn) carrier {
	tb.Helper()
	config := i.agent.Clone()
	config.ServerName = "localhost"
	agent, gateway := tls.Client(dialed, config), tls.Server(accepted, i.gateway)
	ctx := soon(tb)
	handshake := make(chan error, 1)
	go func() { handshake <- gateway.HandshakeContext(ctx) }()
	require.NoError(tb, agent.HandshakeContext(ctx))
	require.NoError(tb, <-handshake)
	return carrier{agent, gateway, agent.ConnectionState(), gateway.ConnectionState(), []net.Conn{dialed, accepted}}
}

// pair starts a Mux on both sides of c. They end with the test.
func pair(tb testing.TB, c carrier, cfg mux.Config) (agent, gateway *mux.Mux) {
	tb.Helper()
	agent = mux.New(c.agent, true, c.agentState, cfg)
	gateway = mux.New(c.gateway, false, c.gatewayState, cfg)
	tb.Cleanup(func() {
		var both sync.WaitGroup
		for _, m := range []*mux.Mux{agent, gateway} {
			both.Go(func() { _ = m.CloseWithError(transport.NoError, "end of test") })
		}
		both.Wait()
	})
	return agent, gateway
}
