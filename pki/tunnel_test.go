package pki_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

// accepted is a listener for connections that others accept.
type accepted struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (a *accepted) Accept() (net.Conn, error) {
	select {
	case conn := <-a.conns:
		return conn, nil
	case <-a.closed:
		return nil, net.ErrClosed
	}
}

func (a *accepted) Close() error {
	a.once.Do(func() { close(a.closed) })
	return nil
}

func (a *accepted) Addr() net.Addr { return &net.UnixAddr{} }

// An agent that reaches nothing but its tunnel renews through that: the gateway
// serves the registration API, with its TLS, on a stream that the agent opens.
func TestRenewalThroughTheTunnel(t *testing.T) {
	const service = "example.com/registrar"
	a, _ := newAuthority(t)
	tunnels := websocket.NewListener(websocket.Config{})
	base := localhost(serveTLS(t, a, tunnels)) // which serves no registration
	gateway := &tunnel.Gateway{Identify: pki.AgentName}
	registry := &accepted{conns: make(chan net.Conn), closed: make(chan struct{})}
	require.NoError(t, gateway.Handle(service, tunnel.HandlerFunc(func(ctx context.Context, in *tunnel.Incoming) {
		stream, err := in.Accept(nil)
		if err != nil {
			return
		}
		select {
		case registry.conns <- stream:
		case <-ctx.Done():
			_ = stream.Close()
		}
	})))
	config, err := a.ServerTLS(tls.VerifyClientCertIfGiven, "gateway.internal")
	require.NoError(t, err)
	server := &http.Server{Handler: pki.Handler(a, pki.HandlerConfig{}), TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}

	clock := new(machine)
	identity := enrollBy(t, a, clock)
	before := identity.Certificate()
	agent := &tunnel.Agent{Gateways: []string{base}, Dialers: []transport.Dialer{&websocket.Dialer{TLSClientConfig: identity.ClientTLS()}}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.ServeTLS(registry, "", "") })
	wg.Go(func() { _ = gateway.Serve(ctx, tunnels) })
	wg.Go(func() { _ = agent.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		_ = server.Close()
		_ = gateway.Close()
		wg.Wait()
	})
	require.NoError(t, agent.WaitConnected(t.Context()))

	client := &pki.Client{
		Gateway: "https://gateway.internal", // a name that no resolver knows
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return agent.Open(ctx, tunnel.Target{Service: service})
		},
	}
	clock.set(65 * day) // the certificate is due
	run(t, identity, client)
	require.Eventually(t, func() bool { return identity.Status().Serial != pki.SerialOf(before.Leaf) }, time.Minute, 10*time.Millisecond)
	require.NoError(t, identity.Status().Failure)
	require.Equal(t, before.Leaf.URIs, identity.Certificate().Leaf.URIs)
	require.Equal(t, tunnel.StateConnected, agent.Status().State) // the tunnel goes on, with the old certificate
	require.NoError(t, a.Verify(t.Context(), before.Leaf))
}
