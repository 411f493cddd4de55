package quic_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

func TestCodeAndReasonOfACloseReachThePeer(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}

	for name, pick := range map[string]func(agent, gateway transport.Mux) (closer, peer transport.Mux){
		"agent":   func(a, g transport.Mux) (transport.Mux, transport.Mux) { return a, g },
		"gateway": func(a, g transport.Mux) (transport.Mux, transport.Mux) { return g, a },
	} {
		t.Run(name, func(t *testing.T) {
			agent, gateway := connect(t, l, d)
			closer, peer := pick(agent, gateway)
			require.NoError(t, closer.CloseWithError(transport.Revoked, "serial 42"))
			require.NoError(t, closer.CloseWithError(transport.Internal, "too late"))

			want := transport.CloseError{Code: transport.Revoked, Reason: "serial 42"}
			assert.Equal(t, &want, context.Cause(closer.Context()))
			eventually(t, peer.Context().Done(), "the peer's context")
			want.Remote = true
			assert.Equal(t, &want, context.Cause(peer.Context()))

			_, err := peer.OpenStream(t.Context())
			assert.Equal(t, &want, err)
			_, err = peer.AcceptStream(t.Context())
			assert.Equal(t, &want, err)
			require.NoError(t, peer.CloseWithError(transport.Internal, "too late"))
		})
	}
}

func TestALongReasonIsCutBetweenCharacters(t *testing.T) {
	agent, gateway := pair(t)
	require.NoError(t, agent.CloseWithError(transport.Draining, strings.Repeat("ü", 100)))
	eventually(t, gateway.Context().Done(), "the peer's context")
	var closed *transport.CloseError
	require.ErrorAs(t, context.Cause(gateway.Context()), &closed)
	assert.Equal(t, strings.Repeat("ü", 60), closed.Reason)
}

func TestACloseWithoutStreamsTakesARoundTripOnly(t *testing.T) {
	agent, _ := pair(t)
	start := time.Now()
	require.NoError(t, agent.CloseWithError(transport.NoError, ""))
	assert.Less(t, time.Since(start), 900*time.Millisecond, "the second is for peers that do not answer")
}

func TestOpenStreamsThatHoldNothingDoNotDelayAClose(t *testing.T) {
	agent, gateway := pair(t)
	for range 20 {
		_, accepted := open(t, gateway, agent, "x")
		_, err := io.ReadFull(accepted, make([]byte, 1))
		require.NoError(t, err)
		_, err = agent.OpenStream(t.Context()) // of which the gateway does not know
		require.NoError(t, err)
	}
	start := time.Now()
	require.NoError(t, gateway.CloseWithError(transport.NoError, ""))
	assert.Less(t, time.Since(start), 900*time.Millisecond)
}

// The library drops what was received and not read when a connection closes.
func TestBytesThatArrivedAreReadAfterTheClose(t *testing.T) {
	agent, gateway := pair(t)
	const size = 15_000 // below the first window of a stream
	type flow struct{ writer, reader transport.Stream }
	flows := map[string]*flow{}
	for _, name := range []string{"ended", "open", "closed"} {
		writer, reader := open(t, gateway, agent, strings.Repeat("a", size))
		flows[name] = &flow{writer, reader}
	}
	require.NoError(t, flows["ended"].writer.CloseWrite())
	require.NoError(t, flows["closed"].writer.Close())

	closed := make(chan error, 1)
	go func() { closed <- gateway.CloseWithError(transport.Draining, "restart") }()
	eventually(t, agent.Context().Done(), "the agent's context")

	<-time.After(200 * time.Millisecond) // a reader that takes its time
	want := &transport.CloseError{Code: transport.Draining, Reason: "restart", Remote: true}
	for name, f := range flows {
		got, err := io.ReadAll(f.reader)
		assert.Len(t, got, size, name)
		if name == "open" {
			assert.Equal(t, want, err, "no end was sent, so none may be read")
		} else {
			assert.NoError(t, err, name)
		}
		_, err = f.reader.Write([]byte("x"))
		assert.Error(t, err, name)
		assert.NoError(t, f.reader.Close(), name)
	}
	require.NoError(t, eventually(t, closed, "CloseWithError"))
	for _, f := range flows {
		_, err := f.writer.Write([]byte("x"))
		assert.ErrorIs(t, err, net.ErrClosed)
		_, err = f.writer.Read(make([]byte, 1))
		assert.ErrorIs(t, err, net.ErrClosed)
	}
}

// A close does not wait for the stream to be read before it begins, nor for the
// network to be kind.
func TestWhatWasWrittenRightBeforeACloseArrives(t *testing.T) {
	ca := testca.New(t)
	for name, carrier := range map[string]net.PacketConn{
		"on a good network":           socket(t),
		"when packets are being lost": &lossyConn{PacketConn: socket(t)},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := quic.ListenPacket(carrier, ca.Gateway(), quic.ListenConfig{})
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })
			d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}
			for range 5 {
				agent, gateway := connect(t, l, d)
				writer, reader := open(t, gateway, agent, "x")
				type result struct {
					n   int64
					err error
				}
				read := make(chan result, 1)
				go func() {
					n, err := io.Copy(io.Discard, reader)
					read <- result{n, err}
				}()
				_, err := writer.Write(make([]byte, 50_000))
				require.NoError(t, err)
				require.NoError(t, gateway.CloseWithError(transport.Draining, "restart"))

				got := eventually(t, read, "the reader")
				assert.EqualValues(t, 50_001, got.n)
				assert.Equal(t, &transport.CloseError{Code: transport.Draining, Reason: "restart", Remote: true}, got.err)
			}
		})
	}
}

func TestWhatNobodyReadsDelaysACloseByASecondOnly(t *testing.T) {
	agent, gateway := pair(t)
	open(t, gateway, agent, "nobody reads this")

	start := time.Now()
	require.NoError(t, gateway.CloseWithError(transport.Draining, ""))
	assert.Less(t, time.Since(start), 3*time.Second)
	require.NoError(t, agent.CloseWithError(transport.NoError, ""))
}

func TestACloseReturnsWhenThePeerHasVanished(t *testing.T) {
	t.Parallel() // it waits most of the time
	ca := testca.New(t)
	mute := &muteConn{PacketConn: socket(t)}
	l, err := quic.ListenPacket(mute, ca.Gateway(), quic.ListenConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
	mute.muted.Store(true)

	start := time.Now()
	require.NoError(t, agent.CloseWithError(transport.NoError, "gone"))
	assert.Less(t, time.Since(start), 4*time.Second)
	require.NoError(t, gateway.CloseWithError(transport.NoError, "gone"))
	assert.Less(t, time.Since(start), 8*time.Second)
}

func TestGivingUpOnAPeerWaitsForNoLongAnswer(t *testing.T) {
	ca := testca.New(t)
	mute := &muteConn{PacketConn: socket(t)}
	l, err := quic.ListenPacket(mute, ca.Gateway(), quic.ListenConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}

	alive, gateway := connect(t, l, d) // for all that, the peer learns of it if it is there
	s, err := gateway.OpenStream(soon(t))
	require.NoError(t, err)
	_, err = s.Write([]byte("the last word"))
	require.NoError(t, err)
	unread, err := alive.AcceptStream(soon(t))
	require.NoError(t, err)
	require.NoError(t, gateway.CloseWithError(transport.Timeout, "no sign of life"))
	word, err := io.ReadAll(unread)
	require.ErrorIs(t, err, transport.Timeout)
	require.Equal(t, "the last word", string(word))
	eventually(t, alive.Context().Done(), "the agent's context")
	require.ErrorIs(t, context.Cause(alive.Context()), transport.Timeout)

	agent, gateway := connect(t, l, d)
	mute.muted.Store(true)
	for _, m := range []transport.Mux{agent, gateway} {
		start := time.Now()
		require.NoError(t, m.CloseWithError(transport.Timeout, "no sign of life"))
		assert.Less(t, time.Since(start), 900*time.Millisecond, "the second is for peers that may answer")
	}
}

func TestBothSidesMayCloseAtOnce(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}
	for range 10 {
		agent, gateway := connect(t, l, d)
		done := make(chan error, 2)
		go func() { done <- agent.CloseWithError(transport.Draining, "agent") }()
		go func() { done <- gateway.CloseWithError(transport.Duplicate, "gateway") }()
		for range 2 {
			require.NoError(t, eventually(t, done, "CloseWithError"))
		}
		for _, m := range []transport.Mux{agent, gateway} {
			var closed *transport.CloseError
			require.ErrorAs(t, context.Cause(m.Context()), &closed)
		}
	}
}

func TestADeadPeerIsNoticed(t *testing.T) {
	t.Parallel() // it waits most of the time
	ca := testca.New(t)
	mute := &muteConn{PacketConn: socket(t)}
	limits := quic.Config{IdleTimeout: 5 * time.Second}
	l, err := quic.ListenPacket(mute, ca.Gateway(), quic.ListenConfig{Config: limits})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1"), Config: limits})
	stream, _ := open(t, agent, gateway, "hello")
	mute.muted.Store(true)

	read := make(chan error, 1)
	go func() {
		_, err := stream.Read(make([]byte, 1))
		read <- err
	}()
	want := &transport.CloseError{Code: transport.Timeout, Reason: "the peer fell silent", Remote: true}
	for _, m := range []transport.Mux{agent, gateway} {
		eventually(t, m.Context().Done(), "the silence")
		assert.Equal(t, want, context.Cause(m.Context()))
	}
	err = eventually(t, read, "the pending Read")
	assert.Equal(t, want, err, "a cut stream must not look like a clean end")
}

func TestAnIdleConnectionStaysUp(t *testing.T) {
	t.Parallel() // it waits most of the time
	if testing.Short() {
		t.Log("short: two thirds of the idle timeout only")
	}
	ca := testca.New(t)
	limits := quic.Config{IdleTimeout: 5 * time.Second}
	l := listen(t, ca, quic.ListenConfig{Config: limits})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1"), Config: limits})

	idle := 7 * time.Second
	if testing.Short() {
		idle = 3 * time.Second
	}
	select {
	case <-agent.Context().Done():
		t.Fatal(context.Cause(agent.Context()))
	case <-gateway.Context().Done():
		t.Fatal(context.Cause(gateway.Context()))
	case <-time.After(idle):
	}
	open(t, gateway, agent, "still there")
}

func TestAcceptedConnectionsOutliveTheListener(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}
	agent, gateway := connect(t, l, d)
	waiting, err := d.Dial(soon(t), urlOf(l.Addr()))
	require.NoError(t, err)

	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	_, err = l.Accept(t.Context())
	require.ErrorIs(t, err, net.ErrClosed)

	eventually(t, waiting.Context().Done(), "the connection that was not accepted")
	assert.ErrorIs(t, context.Cause(waiting.Context()), transport.Draining)

	_, accepted := open(t, agent, gateway, "after")
	got := make([]byte, 5)
	_, err = io.ReadFull(accepted, got)
	require.NoError(t, err)
	assert.Equal(t, "after", string(got))
	_, err = d.Dial(soon(t), urlOf(l.Addr()))
	require.ErrorIs(t, err, transport.Overloaded, "refused at once, not after a timeout")
}

func TestAcceptEndsWithItsContextAndWithTheListener(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() {
		_, err := l.Accept(ctx)
		ended <- err
	}()
	cancel()
	require.ErrorIs(t, eventually(t, ended, "Accept"), context.Canceled)

	go func() {
		_, err := l.Accept(t.Context())
		ended <- err
	}()
	require.NoError(t, l.Close())
	require.ErrorIs(t, eventually(t, ended, "Accept"), net.ErrClosed)
}

func TestAcceptReportsASocketThatFailed(t *testing.T) {
	ca := testca.New(t)
	udp := socket(t)
	l, err := quic.ListenPacket(udp, ca.Gateway(), quic.ListenConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	require.NoError(t, udp.Close())
	_, err = l.Accept(soon(t))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorContains(t, err, "the socket failed")
}
