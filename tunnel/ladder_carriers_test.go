package tunnel_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

// firewall drops what it is told to.
type firewall struct{ udp, tcp atomic.Bool }

// packets is a UDP socket behind the firewall.
type packets struct {
	net.PacketConn
	behind *firewall
}

func (p packets) WriteTo(b []byte, to net.Addr) (int, error) {
	if p.behind.udp.Load() {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, to)
}

func (f *firewall) quic(ca *testca.CA) transport.Dialer {
	return &quic.Dialer{
		TLSClientConfig:  ca.Agent("agent-1"),
		HandshakeTimeout: time.Second,
		ListenPacket: func(ctx context.Context, network, address string) (net.PacketConn, error) {
			c, err := new(net.ListenConfig).ListenPacket(ctx, network, address)
			return packets{c, f}, err
		},
	}
}

func (f *firewall) websocket(ca *testca.CA) transport.Dialer {
	return &websocket.Dialer{
		TLSClientConfig: ca.Agent("agent-1"),
		NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if f.tcp.Load() {
				return nil, errors.New("TCP is filtered")
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
}

// bothCarriers is a gateway that listens with TCP and UDP on the same port.
func bothCarriers(t *testing.T, ca *testca.CA) (g *tunnel.Gateway, url string) {
	t.Helper()
	ws, err := websocket.Listen("127.0.0.1:0", ca.Gateway(), websocket.Config{})
	require.NoError(t, err)
	udp, err := quic.Listen(ws.Addr().String(), ca.Gateway(), quic.ListenConfig{})
	require.NoError(t, err)
	g = &tunnel.Gateway{}
	served := make(chan error, 2)
	for _, ln := range []transport.Listener{ws, udp} {
		go func() { served <- g.Serve(context.Background(), ln) }()
	}
	t.Cleanup(func() {
		_ = g.Close()
		for range 2 {
			require.ErrorIs(t, <-served, tunnel.ErrGatewayClosed)
		}
	})
	return g, "https://" + ws.Addr().String()
}

func TestTheLadderOverRealSockets(t *testing.T) {
	ca := testca.New(t)
	g, url := bothCarriers(t, ca)
	f := new(firewall)
	f.udp.Store(true)
	a := &tunnel.Agent{
		Gateways:   []string{url},
		Dialers:    []transport.Dialer{f.quic(ca), f.websocket(ca)},
		Policy:     policy.InsecureAllowAll(),
		BackoffMax: time.Second,
		ClimbMin:   100 * time.Millisecond,
		ClimbMax:   time.Second,
	}
	require.NoError(t, a.Handle(echoService, echo))
	ran := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ran <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	uses := func(name string) {
		t.Helper()
		require.Eventually(t, func() bool {
			for _, r := range a.Status().Rungs {
				if r.Current && r.Transport == name {
					return true
				}
			}
			return false
		}, time.Minute, 10*time.Millisecond, "the agent does not use %s", name)
		// Between two connections there is none.
		require.Eventually(t, func() bool {
			s, err := g.Session("agent-1")
			if err != nil {
				return false
			}
			stream, err := s.Open(t.Context(), echoTarget())
			if err != nil {
				return false
			}
			defer stream.Close()
			requireEcho(t, stream)
			return true
		}, time.Minute, 10*time.Millisecond)
	}

	uses("websocket") // UDP is blocked
	require.ErrorIs(t, a.Status().Rungs[0].Err, transport.Timeout)
	s, err := g.Session("agent-1")
	require.NoError(t, err)
	stream, err := s.Open(t.Context(), echoTarget())
	require.NoError(t, err)

	f.udp.Store(false)
	uses("quic") // UDP has come back
	requireEcho(t, stream)
	require.NoError(t, stream.Close())

	f.udp.Store(true)
	uses("websocket") // and is blocked again, under a connection that works
	require.NoError(t, s.Close())
}

func TestQUICWhereTCPIsBlocked(t *testing.T) {
	ca := testca.New(t)
	g, url := bothCarriers(t, ca)
	f := new(firewall)
	f.tcp.Store(true)
	a := &tunnel.Agent{Gateways: []string{url}, Dialers: []transport.Dialer{f.websocket(ca), f.quic(ca)}, Policy: policy.InsecureAllowAll()}
	require.NoError(t, a.Handle(echoService, echo))
	ran := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ran <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	s, err := g.WaitSession(t.Context(), "agent-1")
	require.NoError(t, err)
	stream, err := s.Open(t.Context(), echoTarget())
	require.NoError(t, err)
	requireEcho(t, stream)
	require.NoError(t, stream.Close())
	st := a.Status()
	require.ErrorContains(t, st.Rungs[0].Err, "TCP is filtered")
	require.True(t, st.Rungs[1].Current)
}
