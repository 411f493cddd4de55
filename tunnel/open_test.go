package tunnel_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// fakeResolver answers for the names of a test.
type fakeResolver func(ctx context.Context, host string) ([]netip.Addr, error)

func (f fakeResolver) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	return f(ctx, host)
}

func TestOpenReachesATCPTargetAndKnowsItsAddress(t *testing.T) {
	target := tcpEcho(t)
	port := target[len("127.0.0.1"):]
	f := start(t, nil, &tunnel.Agent{Resolver: fakeResolver(func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	})})
	f.session(t)
	dial := f.gateway.Dialer("agent-1", "alice")
	for _, network := range []string{"tcp", "tcp4", "tcp6", "http"} {
		c, err := dial(t.Context(), network, "echo.internal"+port)
		require.NoError(t, err)
		require.Equal(t, target, c.RemoteAddr().String(), "the address that the agent reached")
		require.Equal(t, "tcp", c.RemoteAddr().Network())
		require.IsType(t, &net.TCPAddr{}, c.RemoteAddr())
		stream := c.(transport.Stream)
		requireEcho(t, stream)
		require.NoError(t, stream.CloseWrite())
		_, err = stream.Read(make([]byte, 1))
		require.EqualError(t, err, "EOF", "the half-close went to the target and back")
		require.NoError(t, c.Close())
	}
}

func TestOpenReachesAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "echo.sock")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 64)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			_, _ = c.Write(buf[:n])
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })

	f := start(t, nil, nil)
	f.session(t)
	c, err := f.gateway.Dialer("agent-1", "alice")(t.Context(), "unix", path)
	require.NoError(t, err)
	require.Equal(t, path, c.RemoteAddr().String())
	requireEcho(t, c.(transport.Stream))
	require.NoError(t, c.Close())
}

// closedPort is an address on loopback where nothing listens.
func closedPort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}

func TestEveryFailureOfADialHasItsOwnCodeAndHarmsNoOtherStream(t *testing.T) {
	rules := policy.Func(func(_ context.Context, r policy.Request) error {
		if r.Target.Host == "secret.internal" {
			return &policy.Denied{Target: r.Target, Rule: "rule text of the owner", Reason: "not for you"}
		}
		return nil
	})
	f := start(t, nil, &tunnel.Agent{
		Policy: allowLoopback{rules},
		Resolver: fakeResolver(func(ctx context.Context, host string) ([]netip.Addr, error) {
			switch host {
			case "slow.internal":
				<-ctx.Done()
				return nil, ctx.Err()
			case "metadata.internal":
				return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}),
		DialTimeout: 300 * time.Millisecond,
	})
	require.NoError(t, f.agent.Handle(echoService, echo))
	s := f.session(t)
	witness, err := s.Open(t.Context(), echoTarget())
	require.NoError(t, err)
	defer witness.Close()

	for _, tt := range []struct {
		name, service, address string
		code                   transport.Code
		remote                 bool
	}{
		{"refused by the target", "tcp", closedPort(t), transport.Refused, true},
		{"no such host", "tcp", "nowhere.internal:80", transport.NameNotFound, true},
		{"denied by name", "tcp", "secret.internal:80", transport.Denied, true},
		{"denied by address", "tcp", "metadata.internal:80", transport.Denied, true},
		{"timed out", "tcp", "slow.internal:80", transport.Timeout, true},
		{"no handler", "test.example/nobody", "", transport.UnknownService, true},
		{"no such socket", "unix", "/nonexistent/x.sock", transport.NameNotFound, true},
		{"not a target", "tcp", "host:port:80", transport.Protocol, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Open(t.Context(), tunnel.Target{Service: tt.service, Address: tt.address, Subject: "alice"})
			oe := openError(t, err)
			require.Equal(t, tt.code, oe.Code, "%v", err)
			require.ErrorIs(t, err, tt.code)
			require.Equal(t, tt.remote, oe.Remote)
			require.Equal(t, "agent-1", oe.Agent)
			require.NotContains(t, err.Error(), "169.254", "what a name resolves to stays with the agent")
			require.Equal(t, tt.code == transport.Timeout, oe.Timeout())
			require.NotContains(t, err.Error(), "rule text of the owner", "rules stay with the agent")
			requireEcho(t, witness)
		})
	}
}

// allowLoopback opens loopback, and nothing else of the deny floor.
type allowLoopback struct{ policy.Policy }

func (allowLoopback) AllowSpecial(r policy.Request) bool { return r.Addr.IsLoopback() }

func TestAnAgentWithoutAPolicyDeniesEverything(t *testing.T) {
	f := start(t, nil, &tunnel.Agent{Policy: noPolicy()})
	require.NoError(t, f.agent.Handle(echoService, echo))
	s := f.session(t)
	for _, target := range []tunnel.Target{
		echoTarget(),
		{Service: "tcp", Address: tcpEcho(t)},
		{Service: "unix", Address: "/run/x.sock"},
	} {
		_, err := s.Open(t.Context(), target)
		require.ErrorIs(t, err, transport.Denied)
		require.ErrorContains(t, err, "no policy")
	}
}

func TestTheGatewaysPolicyIsAskedFirst(t *testing.T) {
	asked := make(chan policy.Request, 1)
	f := start(t, &tunnel.Gateway{Policy: policy.Func(func(_ context.Context, r policy.Request) error {
		asked <- r
		return &policy.Denied{Target: r.Target, Reason: "not today"}
	})}, nil)
	_, err := f.session(t).Open(t.Context(), tunnel.Target{Service: "tcp", Address: "DB.internal.:5432", Subject: "alice"})
	oe := openError(t, err)
	require.Equal(t, transport.Denied, oe.Code)
	require.False(t, oe.Remote)
	r := <-asked
	require.Equal(t, policy.Target{Service: "tcp", Host: "db.internal", Port: 5432}, r.Target)
	require.Equal(t, "alice", r.Subject)
	require.Equal(t, "agent-1", r.Agent)
}

func TestOpenThroughAnUnknownAgentSaysSo(t *testing.T) {
	g := &tunnel.Gateway{}
	_, err := g.Dialer("nobody", "alice")(t.Context(), "tcp", "db:5432")
	require.ErrorIs(t, err, tunnel.ErrNotConnected)
	require.ErrorIs(t, err, transport.NotConnected)
	require.True(t, openError(t, err).Temporary())
	_, err = g.Session("nobody")
	require.ErrorIs(t, err, tunnel.ErrNotConnected)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = g.WaitSession(ctx, "nobody")
	require.ErrorIs(t, err, tunnel.ErrNotConnected)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestACanceledOpenCancelsTheDialOnTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialing, canceled := make(chan struct{}), make(chan error, 1)
		f := start(t, nil, &tunnel.Agent{Resolver: fakeResolver(func(ctx context.Context, _ string) ([]netip.Addr, error) {
			close(dialing)
			<-ctx.Done()
			canceled <- ctx.Err()
			return nil, ctx.Err()
		})})
		s := f.session(t)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-dialing; cancel() }()
		began := time.Now()
		_, err := s.Open(ctx, tunnel.Target{Service: "tcp", Address: "slow.internal:80"})
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, transport.Canceled)
		<-canceled
		require.Zero(t, time.Since(began), "nobody waited for a timeout")
	})
}

func TestAnOpenWithoutAnAnswerEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		release := make(chan struct{})
		require.NoError(t, f.agent.Handle(echoService, tunnel.HandlerFunc(func(ctx context.Context, _ *tunnel.Incoming) {
			<-release
		})))
		s := f.session(t)
		began := time.Now()
		_, err := s.Open(t.Context(), echoTarget())
		require.ErrorIs(t, err, transport.Timeout)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 15*time.Second, time.Since(began))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.Open(ctx, echoTarget())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 16*time.Second, time.Since(began))
		close(release)
	})
}

func TestTheAgentLearnsWhenItsCallerStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		left := make(chan time.Duration, 1)
		require.NoError(t, f.agent.Handle(echoService, tunnel.HandlerFunc(func(_ context.Context, in *tunnel.Incoming) {
			left <- time.Until(in.Deadline)
			_ = in.Reject(transport.Refused, "no")
		})))
		s := f.session(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := s.Open(ctx, echoTarget())
		require.ErrorIs(t, err, transport.Refused)
		require.InDelta(t, 2*time.Second, <-left, float64(150*time.Millisecond))
	})
}

func TestTooManyUnansweredOpensAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, &tunnel.Agent{MaxPendingOpens: 8})
		release := make(chan struct{})
		require.NoError(t, f.agent.Handle(echoService, tunnel.HandlerFunc(func(ctx context.Context, in *tunnel.Incoming) {
			<-release
			echo(ctx, in)
		})))
		s := f.session(t)
		type result struct {
			stream transport.Stream
			err    error
		}
		results := make(chan result)
		for range 8 {
			go func() {
				stream, err := s.Open(t.Context(), echoTarget())
				results <- result{stream, err}
			}()
		}
		synctest.Wait()
		_, err := s.Open(t.Context(), echoTarget())
		require.ErrorIs(t, err, transport.Overloaded)
		require.ErrorContains(t, err, "8 streams")
		close(release)
		for range 8 {
			r := <-results
			require.NoError(t, r.err)
			requireEcho(t, r.stream) // answered streams do not count any more
			defer r.stream.Close()
		}
		stream, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)
		require.NoError(t, stream.Close())
	})
}

func TestAnOpenErrorIsANetError(t *testing.T) {
	err := error(&tunnel.OpenError{Agent: "a", Target: tunnel.Target{Service: "tcp", Address: "db:1"}, Code: transport.Timeout})
	var ne net.Error
	require.True(t, errors.As(err, &ne) && ne.Timeout())
	require.Equal(t, "tunnel: open tcp:db:1 through agent a: timed out", err.Error())
}
