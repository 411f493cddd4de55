package tunnel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a gateway and one agent over the mem transport.
type fixture struct {
	gateway  *tunnel.Gateway
	agent    *tunnel.Agent
	listener *mem.Listener
	dialer   *mem.Dialer
	ran      chan error // what Run returned
}

// start runs gateway and agent until the test ends. The arguments, which may be nil,
// configure them first.
func start(t testing.TB, gateway *tunnel.Gateway, agent *tunnel.Agent) *fixture {
	t.Helper()
	if gateway == nil {
		gateway = &tunnel.Gateway{}
	}
	if agent == nil {
		agent = &tunnel.Agent{}
	}
	f := &fixture{gateway: gateway, agent: agent, listener: &mem.Listener{}, ran: make(chan error, 1)}
	f.dialer = &mem.Dialer{Listener: f.listener, Name: "agent-1"}
	if agent.Dialers == nil {
		agent.Dialers = []transport.Dialer{f.dialer}
	}
	for i, d := range agent.Dialers {
		switch d := d.(type) {
		case through:
			agent.Dialers[i] = d.over(f.dialer)
		case named:
			agent.Dialers[i] = named{d.name, d.Dialer.(through).over(f.dialer)}
		}
	}
	if agent.Gateways == nil {
		agent.Gateways = []string{"https://gateway.example.com"}
	}
	switch agent.Policy {
	case nil:
		agent.Policy = policy.InsecureAllowAll()
	case noPolicy():
		agent.Policy = nil
	}
	agent.Name = "agent-1"

	served := make(chan error, 1)
	go func() { served <- gateway.Serve(context.Background(), f.listener) }()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { f.ran <- agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-f.ran
		_ = gateway.Close()
		require.ErrorIs(t, <-served, tunnel.ErrGatewayClosed)
	})
	return f
}

// dialFunc is a transport.Dialer.
type dialFunc func(ctx context.Context, gateway string) (transport.Mux, error)

func (f dialFunc) Dial(ctx context.Context, gateway string) (transport.Mux, error) {
	return f(ctx, gateway)
}

// through is a transport.Dialer that may use the fixture's own.
type through func(ctx context.Context, gateway string, d *mem.Dialer) (transport.Mux, error)

func (f through) Dial(context.Context, string) (transport.Mux, error) { panic("start replaces it") }

func (f through) over(d *mem.Dialer) transport.Dialer {
	return dialFunc(func(ctx context.Context, url string) (transport.Mux, error) { return f(ctx, url, d) })
}

// named is a through with a name.
type named struct {
	name string
	transport.Dialer
}

func (n named) String() string { return n.name }

type none struct{ policy.Policy }

// noPolicy asks start for an agent without one.
func noPolicy() policy.Policy { return none{} }

// session waits for the agent.
func (f *fixture) session(t testing.TB) tunnel.Session {
	t.Helper()
	s, err := f.gateway.WaitSession(t.Context(), "agent-1")
	require.NoError(t, err)
	return s
}

// echo serves a service by sending back what arrives.
var echo = tunnel.HandlerFunc(func(_ context.Context, in *tunnel.Incoming) {
	stream, err := in.Accept(nil)
	if err != nil {
		return
	}
	defer stream.Close()
	_, _ = io.Copy(stream, stream)
})

const echoService = "test.example/echo"

func echoTarget() tunnel.Target { return tunnel.Target{Service: echoService, Subject: "alice"} }

// requireEcho shows that a stream carries bytes both ways.
func requireEcho(t testing.TB, s transport.Stream) {
	t.Helper()
	want := []byte("hello through the tunnel")
	_, err := s.Write(want)
	require.NoError(t, err)
	got := make([]byte, len(want))
	_, err = io.ReadFull(s, got)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func openError(t testing.TB, err error) *tunnel.OpenError {
	t.Helper()
	var oe *tunnel.OpenError
	require.ErrorAs(t, err, &oe)
	return oe
}

// tcpEcho is a private service on loopback.
func tcpEcho(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
				_ = c.(*net.TCPConn).CloseWrite()
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}
